package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
)

func (s workerService) AddDirectWorker(ctx context.Context, req *schedv1.AddDirectWorkerRequest) (*schedv1.AddDirectWorkerResponse, error) {
	c := request()
	address := c.in("address").address(req.GetAddress())
	if err := c.err(); err != nil {
		return nil, err
	}
	_, _, err := s.agree(ctx, func(*state.State, time.Time) (change, error) {
		return change{commands: []state.Command{state.SetDirect{Address: address}}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &schedv1.AddDirectWorkerResponse{Addresses: s.directs()}, nil
}

// RemoveDirectWorker takes any address that is on the list, whatever is thought
// of addresses by now.
func (s workerService) RemoveDirectWorker(ctx context.Context, req *schedv1.RemoveDirectWorkerRequest) (*schedv1.RemoveDirectWorkerResponse, error) {
	c := request()
	address := c.in("address").text(req.GetAddress(), maxAddress)
	if address == "" {
		c.in("address").failf("is required: one that is on the list")
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	_, _, err := s.agree(ctx, func(st *state.State, _ time.Time) (change, error) {
		if !slices.Contains(st.Directs(), address) {
			return change{}, fmt.Errorf("address %s: %w on the list of workers that are dialled", quote(address), state.ErrNotFound)
		}
		return change{commands: []state.Command{state.SetDirect{Address: address, Remove: true}}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &schedv1.RemoveDirectWorkerResponse{Addresses: s.directs()}, nil
}

func (s workerService) ListDirectWorkers(context.Context, *schedv1.ListDirectWorkersRequest) (*schedv1.ListDirectWorkersResponse, error) {
	return &schedv1.ListDirectWorkersResponse{Addresses: s.directs()}, nil
}

// directs returns the addresses that are dialled.
func (s *Server) directs() (list []string) {
	s.Store.View(func(st *state.State) { list = st.Directs() })
	return list
}
