package bench

// Scenarios are all there are, in the order in which they are run.
func Scenarios() []Scenario {
	return []Scenario{
		sustain,
		burst,
		control,
		trigger,
		define,
		workers,
		reconnect,
		logs,
	}
}
