package bench

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// loadZones returns the time zones of idle jobs.
func loadZones() (zones []*time.Location, err error) {
	for _, name := range []string{"UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			return nil, fmt.Errorf("find the time zone %s: %w", name, err)
		}
		zones = append(zones, zone)
	}
	return zones, nil
}

// idleHours is over how many hours of the day idle jobs are spread. The others are the
// ones that come next.
const idleHours = 20

// idle is the n-th job of a large installation: due once a day, at a minute of its own in
// one of the zones, and not within an hour from now.
func idle(n int, zones []*time.Location, now time.Time) *schedv1.Job {
	zone, turn := zones[n%len(zones)], n/len(zones)
	hour, minute := (now.In(zone).Hour()+2+turn%idleHours)%24, turn/idleHours%60
	department := fmt.Sprintf("%07d", n)
	j := Job("report-of-department-"+department, []string{"/usr/local/bin/report", "--department", department, "--format", "pdf"}, &schedv1.Trigger{
		Id: "daily", When: &schedv1.Trigger_Cron{Cron: &schedv1.Cron{Expression: fmt.Sprintf("%d %d * * *", minute, hour), TimeZone: zone.String()}},
	})
	j.Labels = map[string]string{"team": fmt.Sprint("team-", n%50), "tier": []string{"gold", "silver", "bronze"}[n%3], "app": "reporting"}
	j.Policy = nil // the defaults
	return j
}

// Idle jobs are defined by so many callers at once, and each so often that is told.
const (
	idleCallers = 32
	tellEach    = 15 * time.Second
)

// defineIdle defines the idle jobs from one number to another, the last excluded.
func defineIdle(ctx context.Context, l *Lab, c *Cluster, from, to int) error {
	l.Say("defining jobs, from %s to %s", count(from), count(to))
	zones, err := loadZones()
	if err != nil {
		return err
	}
	clients, closeAll, err := c.DialMany(clientsOfMany)
	if err != nil {
		return err
	}
	defer closeAll()
	var next, told atomic.Int64
	next.Store(int64(from))
	begin := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for w := range idleCallers {
		g.Go(func() error {
			for n := int(next.Add(1)) - 1; n < to; n = int(next.Add(1)) - 1 {
				if err := clients[w%len(clients)].put(ctx, idle(n, zones, time.Now())); err != nil {
					return err
				}
				if turn := int64(time.Since(begin) / tellEach); told.Load() < turn && told.Swap(turn) < turn {
					l.Say("%s jobs are defined", count(n))
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (c *Client) put(ctx context.Context, j *schedv1.Job) error {
	if _, err := c.Jobs.PutJob(ctx, &schedv1.PutJobRequest{Job: j}); err != nil {
		return fmt.Errorf("define the job %s: %w", j.GetName(), err)
	}
	return nil
}

// count is a number as people write it.
func count(n int) string {
	text := strconv.Itoa(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
