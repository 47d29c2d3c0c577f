package bench

// Scenarios are all there are, in the order in which they are run.
func Scenarios() []Scenario {
	return []Scenario{
		sustain,
		burst,
		control,
		trigger,
		define,
		restart,
		failover,
		workers,
		reconnect,
		logs,
	}
}
