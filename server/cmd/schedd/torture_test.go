package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/schedd/schedd/server/torture/verdict"
)

// One promise that is broken everywhere does not hide another one, and what is told
// can be looked at.
func TestTortureReport(t *testing.T) {
	var j verdict.Judgement
	for i := range 30 {
		j.Violations = append(j.Violations, verdict.Violation{Promise: verdict.FencesGrow, Server: "p1:1", Job: "tick", Run: fmt.Sprint("r", i), Attempt: 2, Text: "it has that of another"})
	}
	j.Violations = append(j.Violations,
		verdict.Violation{Promise: verdict.OutputWhole, Server: "p2:1", Job: "burst", Run: "r7", Attempt: 3, Text: "it has 7 bytes"},
		verdict.Violation{Promise: verdict.DecidedOnce, Server: "p3:1", Job: "tock", Text: "nothing was decided"},
		verdict.Violation{Promise: verdict.NoCrash, Text: "p1 ended by itself"})
	for i := range 7 {
		j.Doubts = append(j.Doubts, fmt.Sprint("doubt ", i))
	}
	report := tortureReport(&tortureOptions{server: "p1:1", namespace: "n", seed: 42}, j)
	for want, times := range map[string]int{
		"BROKEN: " + string(verdict.FencesGrow): mostTold, "and 25 more times: fences grow": 1,
		"job burst, run r7, attempt 3, as p2:1 tells it":                                                      1,
		`see: grpcurl -plaintext -d '{"run_id":"r7","attempt":3}' p2:1 schedd.v1.RunService/ReadLog`:          1,
		`see: grpcurl -plaintext -d '{"id":"r0"}' p1:1 schedd.v1.RunService/GetRun`:                           1,
		`see: grpcurl -plaintext -d '{"namespace":"n","name":"tock"}' p3:1 schedd.v1.JobService/VerifyLedger`: 1,
		"p1 ended by itself": 1, "NOT SEEN: ": mostTold, "and 2 more that were not seen": 1, "seed 42": 1, "all promises were kept": 0,
	} {
		if got := strings.Count(report, want); got != times {
			t.Errorf("%q stands there %d times, want %d:\n%s", want, got, times, report)
		}
	}
	if held := tortureReport(&tortureOptions{}, verdict.Judgement{}); !strings.Contains(held, "all promises were kept") {
		t.Error(held)
	}
	// Nobody who reads the last lines may take for kept what was not looked at.
	part := tortureReport(&tortureOptions{}, verdict.Judgement{Unlooked: []verdict.Promise{verdict.StartedOnce, verdict.NoGhosts}})
	want := "NOT LOOKED AT: an attempt is started at most once; nothing is started that is no attempt (--effects looks at the first three)\nthe other promises were kept\n"
	if !strings.Contains(part, want) || strings.Contains(part, "all promises") {
		t.Error(part)
	}
}
