package api

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// Each row is what is wrong with a job, in JSON laid over one that is right, and
// the fields that have to be named: just these.
func TestPutJobNamesWrongFields(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	tests := []struct {
		job    string
		fields string
	}{
		{`{"name":""}`, "job.name"},
		{`{"name":"Nightly"}`, "job.name"},
		{`{"name":"-a","namespace":"a b"}`, "job.name job.namespace"},
		{`{"name":"` + long(64) + `"}`, "job.name"},
		{`{"description":"` + long(4097) + `"}`, "job.description"},
		{`{"labels":{"-":"v","a":"-"}}`, `job.labels["-"] job.labels["a"]`},
		{`{"task":null}`, "job.task"},
		{`{"task":{"user":"root"}}`, "job.task"},
		{`{"task":{"exec":{}}}`, "job.task.exec.argv"},
		{`{"task":{"exec":{"argv":[""]}}}`, "job.task.exec.argv[0]"},
		{`{"task":{"exec":{"argv":["a","b\u0000"]}}}`, "job.task.exec.argv[1]"},
		{`{"task":{"exec":{"argv":["` + long(128<<10+1) + `"]}}}`, "job.task.exec.argv"},
		{`{"task":{"script":{}}}`, "job.task.script.body"},
		{`{"task":{"script":{"body":"x","interpreter":[""]}}}`, "job.task.script.interpreter[0]"},
		{`{"task":{"script":{"body":"` + long(128<<10+1) + `"}}}`, "job.task.script.body"},
		{`{"task":{"exec":{"argv":["a"]},"stdin":"` + long(128<<10+1) + `"}}`, "job.task.stdin"},
		{`{"task":{"exec":{"argv":["a"]},"limits":{"memoryBytes":"1000","cpus":0.001,"pids":"-1"}}}`, "job.task.limits.memory_bytes job.task.limits.pids job.task.limits.cpus"},
		{`{"task":{"exec":{"argv":["a"]},"limits":{"cpus":"NaN"}}}`, "job.task.limits.cpus"},
		{
			`{"task":{"exec":{"argv":["a"]},"env":{"1":"","SCHEDD_X":"","a b":"","OK":"\u0000"}}}`,
			`job.task.env["1"] job.task.env["SCHEDD_X"] job.task.env["a\x20b"] job.task.env["OK"]`,
		},
		{`{"task":{"exec":{"argv":["a"]},"working_dir":"srv"}}`, "job.task.working_dir"},
		{`{"task":{"exec":{"argv":["a"]},"user":"a b"}}`, "job.task.user"},
		{`{"target":{"selector":"zone in eu"}}`, "job.target.selector"},
		{`{"target":{"selector":"` + long(1025) + `"}}`, "job.target.selector"},
		{`{"target":{"strategy":77}}`, "job.target.strategy"},

		{`{"triggers":[{}]}`, "job.triggers[0]"},
		{`{"triggers":[{"id":"A","every":{"interval":"60s"}}]}`, "job.triggers[0].id"},
		{`{"triggers":[{"every":{"interval":"60s"}},{"every":{"interval":"60s"}}]}`, "job.triggers[0].id job.triggers[1].id"},
		{`{"triggers":[{"id":"a","every":{"interval":"60s"}},{"id":"a","at":{"time":"2030-01-01T00:00:00Z"}}]}`, "job.triggers[1].id"},
		{`{"triggers":[{"id":"every","at":{"time":"2030-01-01T00:00:00Z"}},{"every":{"interval":"60s"}}]}`, "job.triggers[1].id"},
		{`{"triggers":[{"every":{}}]}`, "job.triggers[0].every.interval"},
		{`{"triggers":[{"every":{"interval":"0.5s","phase":"-1s"}}]}`, "job.triggers[0].every.interval job.triggers[0].every.phase"},
		{`{"triggers":[{"every":{"interval":"1.0005s"}}]}`, "job.triggers[0].every.interval"},
		{`{"triggers":[{"every":{"interval":"60s","phase":"60s"}}]}`, "job.triggers[0].every.phase"},
		{`{"triggers":[{"every":{"interval":"60s"},"jitter":"86401s"}]}`, "job.triggers[0].jitter"},
		{`{"triggers":[{"at":{}}]}`, "job.triggers[0].at.time"},
		{`{"triggers":[{"at":{"time":"1999-12-31T23:59:59Z"}}]}`, "job.triggers[0].at.time"},
		{`{"triggers":[{"at":{"time":"1960-01-01T00:00:00Z"}}]}`, "job.triggers[0].at.time"},
		{`{"triggers":[{"at":{"time":"9999-01-01T00:00:00Z"}}]}`, "job.triggers[0].at.time"},
		{`{"triggers":[{"at":{"time":"2030-01-01T00:00:00Z"},"end_time":"2029-01-01T00:00:00Z"}]}`, "job.triggers[0].at.time"},
		{`{"triggers":[{"cron":{"expression":"* * * * *"},"end_time":"1999-01-01T00:00:00Z"}]}`, "job.triggers[0].end_time"},
		{`{"triggers":[{"cron":{"expression":"* * * * *"},"exclude":[{"period":{"start_time":"1999-01-01T00:00:00Z","end_time":"2261-01-01T00:00:00Z"}}]},
			{"at":{"time":"2030-01-01T00:00:00Z"},"exclude":[{"date":"2030-01-01"}]}]}`, "job.triggers[1].exclude"},
		{`{"triggers":[{"cron":{}}]}`, "job.triggers[0].cron.expression"},
		{`{"triggers":[{"cron":{"expression":"0 0 30 2 *"}}]}`, "job.triggers[0].cron.expression"},
		{
			`{"triggers":[{"every":{"interval":"60s"}},{"cron":{"expression":"61 * * * *","time_zone":"Mars/Olympus","dst_gap":9,"dst_overlap":9},
			"start_time":"0001-01-01T00:00:00Z"}]}`,
			"job.triggers[1].cron.expression job.triggers[1].cron.time_zone job.triggers[1].cron.dst_gap job.triggers[1].cron.dst_overlap job.triggers[1].start_time",
		},
		{
			`{"triggers":[{"every":{"interval":"60s"},"exclude":[{},{"date":"25.12."},{"period":{}},{"period":{"start_time":"2030-01-02T00:00:00Z","end_time":"2030-01-01T00:00:00Z"}}]}]}`,
			"job.triggers[0].exclude[0] job.triggers[0].exclude[1].date job.triggers[0].exclude[2].period.start_time job.triggers[0].exclude[2].period.end_time job.triggers[0].exclude[3].period.end_time",
		},

		{
			`{"policy":{"overlap":9,"catch_up":9,"on_lost":9,"max_concurrent":1001,"log_limit_bytes":1}}`,
			"job.policy.overlap job.policy.catch_up job.policy.on_lost job.policy.max_concurrent job.policy.log_limit_bytes",
		},
		{
			`{"policy":{"catch_up_window":"2678401s","timeout":"-1s","kill_grace":"3601s","queue_timeout":"0s","start_within":"0s","lost_after":"59s"}}`,
			"job.policy.catch_up_window job.policy.timeout job.policy.kill_grace job.policy.queue_timeout job.policy.start_within job.policy.lost_after",
		},
		{`{"policy":{"timeout":"315576000000s"}}`, "job.policy.timeout"},
		{`{"policy":{"kill_after":"29s"}}`, "job.policy.kill_after"},
		{`{"policy":{"kill_after":"-1s"}}`, "job.policy.kill_after"},
		{`{"policy":{"kill_after":"120s","kill_grace":"10s","lost_after":"147s"}}`, "job.policy.lost_after"},
		{`{"policy":{"kill_after":"29s","lost_after":"59s"}}`, "job.policy.kill_after job.policy.lost_after"},
		{
			`{"policy":{"retry":{"max_attempts":101,"multiplier":"NaN","initial_delay":"-1s","max_delay":"-1s","exit_codes":[75,0,256]}}}`,
			"job.policy.retry.max_attempts job.policy.retry.multiplier job.policy.retry.initial_delay job.policy.retry.max_delay job.policy.retry.exit_codes[1] job.policy.retry.exit_codes[2]",
		},
		{`{"policy":{"retry":{"initial_delay":"301s"}}}`, "job.policy.retry.initial_delay"},
		{`{"policy":{"retry":{"multiplier":0.5}}}`, "job.policy.retry.multiplier"},

		{`{"task":{"http":{}},"name":"A"}`, "job.task.http job.name"},
	}
	story(t, func(t *testing.T, p *primary) {
		for _, tt := range tests {
			var over schedv1.Job
			unmarshal(t, &over, tt.job)
			_, err := p.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: lay(t, &over, tt.job)})
			fields := strings.Fields(tt.fields)
			for i := range fields {
				fields[i] = strings.ReplaceAll(fields[i], `\x20`, " ")
			}
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("%.80s: %v", tt.job, err)
				continue
			}
			says(t, err, codes.InvalidArgument, fields...)
		}
		_, err := p.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{})
		says(t, err, codes.InvalidArgument, "job")
		_, err = p.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: aJob("j", func(j *schedv1.Job) {
			j.Task.Env = map[string]string{"A": long(120 << 10), "B": long(120 << 10), "C": long(120 << 10), "D": long(120 << 10)}
			j.Task.Stdin = long(120 << 10)
		})})
		says(t, err, codes.InvalidArgument, "job")
		_, err = p.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: aJob("j", func(j *schedv1.Job) {
			j.Policy = &schedv1.Policy{Timeout: &durationpb.Duration{Seconds: 1, Nanos: -1}}
			j.Triggers[0].StartTime = &timestamppb.Timestamp{Nanos: -1}
		})})
		says(t, err, codes.InvalidArgument, "job.policy.timeout", "job.triggers[0].start_time")
	})
}

// lay returns a job that is right, with the fields of the other one that the
// text names laid over.
func lay(t *testing.T, over *schedv1.Job, text string) *schedv1.Job {
	j := aJob("j")
	if strings.Contains(text, `"name"`) {
		j.Name = over.GetName()
	}
	if strings.Contains(text, `"task"`) {
		j.Task = over.GetTask()
	}
	if strings.Contains(text, `"triggers"`) {
		j.Triggers = over.GetTriggers()
	}
	over = proto.Clone(over).(*schedv1.Job)
	over.Name, over.Task, over.Triggers = j.Name, nil, nil
	proto.Merge(j, over)
	return j
}

func TestNotServedYet(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		for field, edit := range map[string]func(*schedv1.Job){
			"job.task.http":       func(j *schedv1.Job) { j.Task.Do = &schedv1.Task_Http{Http: &schedv1.Http{}} },
			"job.task.plugin":     func(j *schedv1.Job) { j.Task.Do = &schedv1.Task_Plugin{Plugin: &schedv1.Plugin{}} },
			"job.target.strategy": func(j *schedv1.Job) { j.Target = &schedv1.Target{Strategy: schedv1.Strategy_STRATEGY_ALL} },
		} {
			_, err := p.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: aJob("j", edit)})
			says(t, err, codes.Unimplemented, field)
		}
	})
}

// However much is wrong, the answer can be sent through any load balancer.
func TestManyWrongFields(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		_, err := p.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: aJob("j", func(j *schedv1.Job) {
			j.Task.Env = map[string]string{}
			for i := range 256 {
				j.Task.Env[fmt.Sprint(i, strings.Repeat("é", 500))] = "x"
			}
		})})
		st := status.Convert(err)
		if st.Code() != codes.InvalidArgument || proto.Size(st.Proto()) > 5<<10 {
			t.Fatalf("%d bytes: %v", proto.Size(st.Proto()), err)
		}
		v := st.Details()[0].(*errdetails.BadRequest).GetFieldViolations()
		if last := v[len(v)-1].GetDescription(); !strings.Contains(last, "more fields are wrong") {
			t.Errorf("the last one says %q", last)
		}
	})
}

func TestMessageSaysWhatIsAllowed(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		for _, tt := range []struct {
			edit func(*schedv1.Job)
			want string
		}{
			{func(j *schedv1.Job) { j.Policy = &schedv1.Policy{Overlap: 9} }, "job.policy.overlap: 9 is not known; allowed are OVERLAP_SKIP, OVERLAP_ALLOW, OVERLAP_QUEUE, OVERLAP_REPLACE"},
			{func(j *schedv1.Job) { j.Policy = &schedv1.Policy{LostAfter: durationpb.New(1)} }, "job.policy.lost_after: is 1ns; allowed are 1m0s to 87840h0m0s"},
			{
				func(j *schedv1.Job) {
					j.Policy = &schedv1.Policy{KillAfter: durationpb.New(2 * time.Minute), LostAfter: durationpb.New(time.Minute)}
				},
				"job.policy.lost_after: is 1m0s, and with a kill_after of 2m0s and a kill_grace of 10s a worker may need until 2m28s to have ended an attempt: make it at least that, or kill_after shorter, or leave lost_after out",
			},
			{func(j *schedv1.Job) { j.Policy = &schedv1.Policy{MaxConcurrent: math.MaxUint32} }, "job.policy.max_concurrent: is 4294967295; allowed are 1 to 1000"},
			{func(j *schedv1.Job) {
				j.Triggers[0].When = &schedv1.Trigger_At{At: &schedv1.At{Time: timestamppb.Now()}}
			}, "job.triggers[0].at.time: lies in the past: it is 2000-01-01T00:00:00Z now"},
		} {
			_, err := p.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: aJob("j", tt.edit)})
			if got := status.Convert(err).Message(); got != tt.want {
				t.Errorf("says %q, want %q", got, tt.want)
			}
		}
	})
}

// lost_after is as long as kill_after asks for when nobody says how long it is to be, and
// what is shown can be put again.
func TestLostAfterFollowsKillAfter(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		for _, tt := range []struct{ kill, grace, lost, want time.Duration }{
			{0, 10 * time.Second, 0, 3 * time.Minute},
			{2 * time.Minute, 10 * time.Second, 0, 3 * time.Minute},
			{10 * time.Minute, 10 * time.Second, 0, 11*time.Minute + 16*time.Second},
			{10*time.Minute + 1, 10 * time.Second, 0, 11*time.Minute + 17*time.Second},
			{2 * time.Minute, 10 * time.Second, 148 * time.Second, 148 * time.Second},
		} {
			pol := &schedv1.Policy{KillAfter: durationpb.New(tt.kill), KillGrace: durationpb.New(tt.grace)}
			if tt.lost > 0 {
				pol.LostAfter = durationpb.New(tt.lost)
			}
			j := p.put(aJob("j", func(j *schedv1.Job) { j.Policy = pol }))
			if got := j.GetPolicy(); got.GetLostAfter().AsDuration() != tt.want || got.GetKillAfter().AsDuration() != tt.kill {
				t.Errorf("kill_after %v: lost_after is %v, want %v", got.GetKillAfter().AsDuration(), got.GetLostAfter().AsDuration(), tt.want)
			}
			p.put(aJob("j", func(again *schedv1.Job) { again.Policy = j.GetPolicy() }))
		}
	})
}

// A trigger whose time has passed may stay, but not come.
func TestPastTriggers(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		soon := timestamppb.New(timestamppb.Now().AsTime().Add(1e9))
		at := func(j *schedv1.Job) {
			j.Triggers = []*schedv1.Trigger{{When: &schedv1.Trigger_At{At: &schedv1.At{Time: soon}}}}
		}
		p.put(aJob("j", at))

		sleep(2 * time.Second)
		p.put(aJob("j", at, func(j *schedv1.Job) { j.Description = "x" }))
		_, err := p.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: aJob("k", at)})
		says(t, err, codes.InvalidArgument, "job.triggers[0].at.time")
		p.put(aJob("k", at, func(j *schedv1.Job) { j.Triggers[0].Disabled = true }))
	})
}
