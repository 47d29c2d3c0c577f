package server

import (
	"fmt"
	"net/http"
	"time"
)

// headerTimeout bounds how long a browser may take to say what it wants.
const headerTimeout = 10 * time.Second

// webServer serves what is for machines that watch: metrics and health.
func (s *Server) webServer() *http.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.handler())
	mux.HandleFunc("GET /healthz", s.serveHealth)
	mux.HandleFunc("GET /readyz", s.serveReady)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusOK, "schedd: /metrics /healthz /readyz; the API is gRPC, see grpcurl -plaintext "+s.APIAddr()+" list")
	})
	return &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
}

// serveHealth tells whether this process should go on living.
func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-s.store.Failed():
		say(w, http.StatusServiceUnavailable, fmt.Sprint("failed: ", s.store.Err()))
	default:
		say(w, http.StatusOK, "ok")
	}
}

// serveReady tells whether this primary can take calls now.
func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	if why := s.unready(); why != "" {
		say(w, http.StatusServiceUnavailable, why)
		return
	}
	if err := s.history.Fault(); err != nil { // no reason not to schedule
		say(w, http.StatusOK, "ready, but the history of runs can't be written: "+err.Error())
		return
	}
	say(w, http.StatusOK, "ready")
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, text) // who asked has left
}
