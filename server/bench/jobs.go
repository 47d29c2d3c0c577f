package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// Namespace is that of all jobs that are made here.
const Namespace = "bench"

// Job is one that runs a program, beside itself if it must, and leaves no occurrence out.
func Job(name string, argv []string, triggers ...*schedv1.Trigger) *schedv1.Job {
	return &schedv1.Job{
		Namespace: Namespace, Name: name, Description: "Made by schedd bench, which removes it.",
		Triggers: triggers,
		Task:     &schedv1.Task{Do: &schedv1.Task_Exec{Exec: &schedv1.Exec{Argv: argv}}, WorkingDir: "/"},
		Policy:   &schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW, CatchUp: schedv1.CatchUp_CATCH_UP_ALL},
	}
}

// clientsOfMany is how many clients make, remove and look at many jobs.
const clientsOfMany = 8

// Each calls f for 0 to n-1, from several clients at once, until one fails.
func (c *Cluster) Each(ctx context.Context, n int, f func(ctx context.Context, client *Client, i int) error) error {
	clients, closeAll, err := c.DialMany(clientsOfMany)
	if err != nil {
		return err
	}
	defer closeAll()
	g, ctx := errgroup.WithContext(ctx)
	for w, client := range clients {
		g.Go(func() error {
			for i := w; i < n; i += len(clients) {
				if err := f(ctx, client, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// Put defines jobs.
func (c *Cluster) Put(ctx context.Context, jobs []*schedv1.Job) error {
	return c.Each(ctx, len(jobs), func(ctx context.Context, client *Client, i int) error {
		if _, err := client.Jobs.PutJob(ctx, &schedv1.PutJobRequest{Job: jobs[i]}); err != nil {
			return fmt.Errorf("define the job %s: %w", jobs[i].GetName(), err)
		}
		return nil
	})
}

// removal bounds how long jobs are removed when all is over.
const removal = 2 * time.Minute

// Remove removes jobs, also when ctx is done. A cluster of our own is thrown away as it
// is.
func (c *Cluster) Remove(ctx context.Context, names []string) error {
	if c.Local != nil {
		return nil
	}
	return c.removeNow(ctx, names)
}

func (c *Cluster) removeNow(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removal)
	defer cancel()
	return c.Each(ctx, len(names), func(ctx context.Context, client *Client, i int) error {
		_, err := client.Jobs.DeleteJob(ctx, &schedv1.DeleteJobRequest{Namespace: Namespace, Name: names[i]})
		if err != nil && status.Code(err) != codes.NotFound {
			return fmt.Errorf("remove the job %s: %w", names[i], err)
		}
		return nil
	})
}
