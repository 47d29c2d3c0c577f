package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// What is stored comes back through the log as it was: applying it again is no
// new version, and what is shown is what was stored.
func TestStoredAndAppliedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := raftstore.Open(raftstore.Config{NodeID: "p1", Memory: raftstore.NewMemory(), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		leading := make(chan struct{})
		var lead sync.WaitGroup
		lead.Go(func() {
			err := store.Lead(ctx, func(ctx context.Context) error {
				close(leading)
				<-ctx.Done()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		defer func() {
			cancel()
			lead.Wait()
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}()
		<-leading
		s := jobService{Server: New(Config{Store: store, History: noPast{}, Cluster: store, Group: lone{store}})}
		drawn := rapid.Custom(definitions) // by number: rapid.Check is not for bubbles
		for n := range 100 {
			k := state.JobKey{Namespace: "default", Name: fmt.Sprint("j", n)}
			var stored *schedv1.Job
			for i := range 2 {
				r, err := s.PutJob(ctx, &schedv1.PutJobRequest{Job: showDefinition(k, drawn.Example(2*n+i))})
				if err != nil {
					t.Fatal(err)
				}
				stored = r.GetJob()
			}
			r, err := s.PutJob(ctx, &schedv1.PutJobRequest{Job: stored, ExpectedVersion: &stored.Version})
			if err != nil || !proto.Equal(r.GetJob(), stored) {
				t.Fatalf("applied again: %v, %v; was %v", r, err, stored)
			}
			if _, err := s.DeleteJob(ctx, &schedv1.DeleteJobRequest{Name: k.Name}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// lone is a group of one.
type lone struct{ *raftstore.Store }

func (l lone) Leader() (string, grpc.ClientConnInterface, error) {
	return "p1", nil, errors.New("it is this primary")
}
