package report

// Targets are what figures are to reach, by scenario and by the name of the figure.
var Targets = map[string]map[string]Target{
	"sustain": {
		"jobs each second":         atLeastShare(0.6),
		"lateness p99":             atMost(500),
		"jobs each second, spread": atLeastShare(0.6),
		"lateness p99, spread":     atMost(500),
		"missed":                   none,
		"twice":                    none,
	},
	"burst": {
		"last start after":      atMostShare(1 / 0.6),
		"peak memory (primary)": atMost(200),
		"missed":                none,
		"twice":                 none,
	},
	"control": {
		"runs, one primary":     atLeast(10_000),
		"runs, three primaries": atLeast(4_000),
		"missed":                none,
		"twice":                 none,
	},
	"trigger": {
		"to first instruction p50": atMost(3),
		"to first instruction p99": atMost(10),
		"runs, 32 callers":         atLeastShare(0.5),
		"missed":                   none,
		"twice":                    none,
	},
	"define": {
		"jobs defined":          atLeast(5_000),
		"acknowledged and lost": none,
	},
	"memory": {
		"primary, 10,000 jobs":    atMost(60),
		"primary, 100,000 jobs":   atMost(250),
		"primary, 1,000,000 jobs": atMost(2_000),
	},
	"restart": {
		"next fire, 10,000 jobs":  atMost(1.5),
		"next fire, 100,000 jobs": atMost(4),
		"missed":                  none,
		"twice":                   none,
	},
	"failover": {
		"next fire, median": atMost(1.5),
		"next fire, worst":  atMost(3),
		"missed":            none,
		"twice":             none,
	},
	"workers": {
		"memory of the primary": atMost(600),
		"processor":             atMost(10),
	},
	"reconnect": {
		"all back after":         atMost(60),
		"dispatch p99 meanwhile": atMost(1),
		"missed":                 none,
		"twice":                  none,
	},
	"logs": {
		"one job":                atLeastShare(0.5),
		"control p99, many jobs": atMost(100),
		"not whole":              none,
		"missed":                 none,
		"twice":                  none,
	},
	"growth": {
		"cost per fire, dearest to cheapest": atMost(2),
		"missed":                             none,
		"twice":                              none,
	},
	"history": {
		"runs made":                    atLeast(1_000_000),
		"memory for it, running":       atMost(100),
		"memory for it, started again": atMost(100),
		"list by job p99":              atMost(50),
		"list by phase p99":            atMost(50),
		"list by worker p99":           atMost(50),
		"list by time p99":             atMost(50),
		"missed":                       none,
	},
}

// none is the target of what must not be.
var none = Target{Most: true, Promise: true}

func atLeast(bound float64) Target      { return Target{Bound: bound} }
func atMost(bound float64) Target       { return Target{Bound: bound, Most: true} }
func atLeastShare(bound float64) Target { return Target{Bound: bound, Share: true} }
func atMostShare(bound float64) Target  { return Target{Bound: bound, Share: true, Most: true} }
