package api

import (
	"maps"
	"slices"
	"strings"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// enum pairs an enumeration of the state with that of the API. The first pair is
// what UNSPECIFIED means.
type enum[S ~int, P protoEnum] []pair[S, P]

type pair[S ~int, P protoEnum] struct {
	inside S
	api    P
}

// show returns a value as the API has it.
func (e enum[S, P]) show(v S) P {
	for _, p := range e {
		if p.inside == v {
			return p.api
		}
	}
	return 0
}

// read checks a value of the API.
func (e enum[S, P]) read(c scope, v P) S {
	if v == 0 {
		return e[0].inside
	}
	for _, p := range e {
		if p.api == v {
			return p.inside
		}
	}
	allowed := make([]string, len(e))
	for i, p := range e {
		allowed[i] = p.api.String()
	}
	c.failf("%d is not known; allowed are %s", int32(v), strings.Join(allowed, ", "))
	return e[0].inside
}

var gaps = enum[state.Gap, schedv1.DstGap]{
	{state.GapRunAfter, schedv1.DstGap_DST_GAP_RUN_AFTER},
	{state.GapSkip, schedv1.DstGap_DST_GAP_SKIP},
}

var dstOverlaps = enum[state.DSTOverlap, schedv1.DstOverlap]{
	{state.DSTOverlapFirst, schedv1.DstOverlap_DST_OVERLAP_FIRST},
	{state.DSTOverlapSecond, schedv1.DstOverlap_DST_OVERLAP_SECOND},
	{state.DSTOverlapBoth, schedv1.DstOverlap_DST_OVERLAP_BOTH},
}

// strategies lacks STRATEGY_ALL, which is not served yet.
var strategies = enum[state.Strategy, schedv1.Strategy]{
	{state.LeastLoaded, schedv1.Strategy_STRATEGY_LEAST_LOADED},
	{state.RoundRobin, schedv1.Strategy_STRATEGY_ROUND_ROBIN},
	{state.Random, schedv1.Strategy_STRATEGY_RANDOM},
	{state.Spread, schedv1.Strategy_STRATEGY_SPREAD},
	{state.PreferFirst, schedv1.Strategy_STRATEGY_PREFER_FIRST},
}

var overlaps = enum[state.Overlap, schedv1.Overlap]{
	{state.OverlapSkip, schedv1.Overlap_OVERLAP_SKIP},
	{state.OverlapAllow, schedv1.Overlap_OVERLAP_ALLOW},
	{state.OverlapQueue, schedv1.Overlap_OVERLAP_QUEUE},
	{state.OverlapReplace, schedv1.Overlap_OVERLAP_REPLACE},
}

var catchUps = enum[state.CatchUp, schedv1.CatchUp]{
	{state.CatchUpLatest, schedv1.CatchUp_CATCH_UP_LATEST},
	{state.CatchUpAll, schedv1.CatchUp_CATCH_UP_ALL},
	{state.CatchUpNone, schedv1.CatchUp_CATCH_UP_NONE},
}

var onLosts = enum[state.OnLost, schedv1.OnLost]{
	{state.OnLostFail, schedv1.OnLost_ON_LOST_FAIL},
	{state.OnLostRetry, schedv1.OnLost_ON_LOST_RETRY},
	{state.OnLostWait, schedv1.OnLost_ON_LOST_WAIT},
}

var phases = enum[state.Phase, schedv1.Phase]{
	{state.Pending, schedv1.Phase_PHASE_PENDING},
	{state.Assigned, schedv1.Phase_PHASE_ASSIGNED},
	{state.Running, schedv1.Phase_PHASE_RUNNING},
	{state.Succeeded, schedv1.Phase_PHASE_SUCCEEDED},
	{state.Failed, schedv1.Phase_PHASE_FAILED},
	{state.TimedOut, schedv1.Phase_PHASE_TIMED_OUT},
	{state.Cancelled, schedv1.Phase_PHASE_CANCELLED},
	{state.Lost, schedv1.Phase_PHASE_LOST},
	{state.Skipped, schedv1.Phase_PHASE_SKIPPED},
	{state.Missed, schedv1.Phase_PHASE_MISSED},
}

var outcomes = enum[state.Outcome, schedv1.Outcome]{
	{state.Unfinished, schedv1.Outcome_OUTCOME_UNSPECIFIED},
	{state.OutcomeSucceeded, schedv1.Outcome_OUTCOME_SUCCEEDED},
	{state.OutcomeFailed, schedv1.Outcome_OUTCOME_FAILED},
	{state.OutcomeNotStarted, schedv1.Outcome_OUTCOME_NOT_STARTED},
	{state.OutcomeTimedOut, schedv1.Outcome_OUTCOME_TIMED_OUT},
	{state.OutcomeCancelled, schedv1.Outcome_OUTCOME_CANCELLED},
	{state.OutcomeLost, schedv1.Outcome_OUTCOME_LOST},
	{state.OutcomeInterrupted, schedv1.Outcome_OUTCOME_INTERRUPTED},
	{state.OutcomeRefused, schedv1.Outcome_OUTCOME_REFUSED},
	{state.OutcomeLeaseExpired, schedv1.Outcome_OUTCOME_LEASE_EXPIRED},
}

var decisions = enum[state.Decision, schedv1.Decision]{
	{state.DecidedRun, schedv1.Decision_DECISION_RUN},
	{state.DecidedSkipped, schedv1.Decision_DECISION_SKIPPED},
	{state.DecidedMissed, schedv1.Decision_DECISION_MISSED},
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

var allMeans = enum[state.Means, schedv1.Means]{
	{state.MeansUnknown, schedv1.Means_MEANS_UNSPECIFIED},
	{state.MeansNone, schedv1.Means_MEANS_NONE},
	{state.MeansProc, schedv1.Means_MEANS_PROC},
	{state.MeansCgroupV2, schedv1.Means_MEANS_CGROUP_V2},
}
