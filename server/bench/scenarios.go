package bench

import "slices"

// Scenarios are all there are, in the order in which they are run.
func Scenarios() []Scenario {
	return slices.Concat([]Scenario{
		sustain,
		burst,
		control,
		trigger,
		define,
	}, new(growing).scenarios(), []Scenario{
		restart,
		failover,
		history,
		workers,
		reconnect,
		logs,
	})
}
