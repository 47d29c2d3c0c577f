package schedule_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/schedd/schedd/server/schedule"
)

// lines renders a preview as a person would see it.
func lines(list []schedule.Explanation) []string {
	var out []string
	for _, x := range list {
		mark := "-"
		if x.Fires {
			mark = "+"
		}
		s := fmt.Sprintf("%s %s = %s %s %v", mark, x.Nominal.Format(time.RFC3339), x.Local, x.Zone, x.Offset)
		if x.Note != "" {
			s += ": " + x.Note
		}
		out = append(out, s)
	}
	return out
}

func TestPreview(t *testing.T) {
	berlin := func(expr string, gap schedule.Gap, overlap schedule.Overlap) *schedule.CronSpec {
		return &schedule.CronSpec{Expression: expr, TimeZone: "Europe/Berlin", Gap: gap, Overlap: overlap}
	}
	jump := "does not exist on 2026-03-29: clocks in Europe/Berlin go from 02:00:00 to 03:00:00"
	cases := []struct {
		story string
		spec  schedule.Spec
		after string
		want  []string
	}{
		{"a lost time that runs after the gap", schedule.Spec{Cron: berlin("30 2 * * *", 0, 0)}, "2026-03-28T00:00:00Z", []string{
			"+ 2026-03-28T01:30:00Z = 2026-03-28 02:30:00 CET 1h0m0s",
			"+ 2026-03-29T01:00:00Z = 2026-03-29 02:30:00 CEST 2h0m0s: 02:30:00 " + jump + "; runs once, right after that",
			"+ 2026-03-30T00:30:00Z = 2026-03-30 02:30:00 CEST 2h0m0s",
		}},
		{"lost times that do not run, beside one that does", schedule.Spec{Cron: berlin("0,10 2,3 * * *", schedule.GapSkip, 0)}, "2026-03-29T00:00:00Z", []string{
			"- 2026-03-29T01:00:00Z = 2026-03-29 02:00:00 CEST 2h0m0s: 02:00:00 (and 1 more) " + jump + "; does not run (dst_gap is skip)",
			"+ 2026-03-29T01:00:00Z = 2026-03-29 03:00:00 CEST 2h0m0s",
			"+ 2026-03-29T01:10:00Z = 2026-03-29 03:10:00 CEST 2h0m0s",
		}},
		{"a time that is lost every year", schedule.Spec{Cron: berlin("30 2 25-31 3 */7", schedule.GapSkip, 0)}, "2026-01-01T00:00:00Z", []string{
			"- 2026-03-29T01:00:00Z = 2026-03-29 02:30:00 CEST 2h0m0s: 02:30:00 " + jump + "; does not run (dst_gap is skip)",
			"- 2027-03-28T01:00:00Z = 2027-03-28 02:30:00 CEST 2h0m0s: 02:30:00 " + strings.ReplaceAll(jump, "2026-03-29", "2027-03-28") + "; does not run (dst_gap is skip)",
		}},
		{"a gap that swallows nothing", schedule.Spec{Cron: berlin("0 3 * * *", 0, 0)}, "2026-03-29T00:00:00Z", []string{
			"+ 2026-03-29T01:00:00Z = 2026-03-29 03:00:00 CEST 2h0m0s",
		}},
		{"elapsed time", schedule.Spec{Cron: berlin("*/30 * * * *", 0, 0)}, "2026-03-29T00:10:00Z", []string{
			"+ 2026-03-29T00:30:00Z = 2026-03-29 01:30:00 CET 1h0m0s",
			"- 2026-03-29T01:00:00Z = 2026-03-29 02:00:00 CEST 2h0m0s: 02:00:00 (and 1 more) " + jump + "; a schedule with a wildcard or step follows elapsed time",
			"+ 2026-03-29T01:00:00Z = 2026-03-29 03:00:00 CEST 2h0m0s",
		}},
		{"a repeated time", schedule.Spec{Cron: berlin("30 2 * * *", 0, 0)}, "2026-10-24T12:00:00Z", []string{
			"+ 2026-10-25T00:30:00Z = 2026-10-25 02:30:00 CEST 2h0m0s: 02:30:00 occurs twice on 2026-10-25; this is the first time",
			"- 2026-10-25T01:30:00Z = 2026-10-25 02:30:00 CET 1h0m0s: 02:30:00 occurs twice on 2026-10-25; does not run the second time (dst_overlap is first)",
			"+ 2026-10-26T01:30:00Z = 2026-10-26 02:30:00 CET 1h0m0s",
		}},
		{"the second one", schedule.Spec{Cron: berlin("30 2 * * *", 0, schedule.OverlapSecond)}, "2026-10-24T12:00:00Z", []string{
			"- 2026-10-25T00:30:00Z = 2026-10-25 02:30:00 CEST 2h0m0s: 02:30:00 occurs twice on 2026-10-25; does not run the first time (dst_overlap is second)",
			"+ 2026-10-25T01:30:00Z = 2026-10-25 02:30:00 CET 1h0m0s: 02:30:00 occurs twice on 2026-10-25; this is the second time",
		}},
		{"an exclusion", schedule.Spec{Cron: berlin("0 9 * * *", 0, 0), Exclude: []schedule.Exclusion{{Date: "2026-12-25"}}}, "2026-12-24T00:00:00Z", []string{
			"+ 2026-12-24T08:00:00Z = 2026-12-24 09:00:00 CET 1h0m0s",
			"- 2026-12-25T08:00:00Z = 2026-12-25 09:00:00 CET 1h0m0s: excluded: 2026-12-25",
			"+ 2026-12-26T08:00:00Z = 2026-12-26 09:00:00 CET 1h0m0s",
		}},
		{
			"a long one is not told at length",
			schedule.Spec{
				Every:   &schedule.EverySpec{Interval: time.Hour},
				Exclude: []schedule.Exclusion{{From: at("2026-01-01T00:00:00Z"), To: at("2027-01-01T00:00:00Z")}},
			},
			"2026-02-01T00:00:00Z",
			[]string{
				"- 2026-02-01T01:00:00Z = 2026-02-01 01:00:00 UTC 0s: excluded: 2026-01-01T00:00:00Z to 2027-01-01T00:00:00Z",
				"- 2026-02-01T02:00:00Z = 2026-02-01 02:00:00 UTC 0s: excluded: 2026-01-01T00:00:00Z to 2027-01-01T00:00:00Z",
				"- 2026-02-01T03:00:00Z = 2026-02-01 03:00:00 UTC 0s: excluded: 2026-01-01T00:00:00Z to 2027-01-01T00:00:00Z; and so on until 2027-01-01T00:00:00Z",
				"+ 2027-01-01T00:00:00Z = 2027-01-01 00:00:00 UTC 0s",
			},
		},
		{"Samoa jumps a day", schedule.Spec{Cron: &schedule.CronSpec{Expression: "0 12 * * *", TimeZone: "Pacific/Apia"}}, "2011-12-30T00:00:00Z", []string{
			"+ 2011-12-30T10:00:00Z = 2011-12-30 12:00:00 +14 14h0m0s: 12:00:00 does not exist on 2011-12-30: clocks in Pacific/Apia go from 2011-12-30 00:00:00 to 2011-12-31 00:00:00; runs once, right after that",
		}},
	}
	for _, c := range cases {
		t.Run(c.story, func(t *testing.T) {
			trigger, err := schedule.Compile(c.spec)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, lines(trigger.Preview(at(c.after), len(c.want)))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A preview ends with the trigger, and says so.
func TestPreviewEnds(t *testing.T) {
	spec := schedule.Spec{
		Cron: &schedule.CronSpec{Expression: "* * * * *"}, End: at("2026-01-02T00:00:00Z"),
		Exclude: []schedule.Exclusion{{From: at("2026-01-01T00:01:00Z"), To: at("2026-02-01T00:00:00Z")}},
	}
	trigger, err := schedule.Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	list := trigger.Preview(at("2025-12-31T23:59:30Z"), 100)
	if len(list) != 4 || !list[0].Fires || !strings.HasSuffix(list[3].Note, "; nothing after it fires") {
		t.Errorf("got %q", lines(list))
	}
	if list := trigger.Preview(at("2026-03-01T00:00:00Z"), 5); len(list) != 0 {
		t.Errorf("after its end: %q", lines(list))
	}
	if list := cronTrigger(t, "* * * * *", "", 0, 0).Preview(date(2026, 1, 1), 1_000_000); len(list) != schedule.MaxPreview {
		t.Errorf("%d entries", len(list))
	}
}

func TestExplain(t *testing.T) {
	spec := schedule.Spec{
		Cron:  &schedule.CronSpec{Expression: "0 2,3 * * *", TimeZone: "Europe/Berlin", Gap: schedule.GapSkip},
		Start: at("2026-01-01T00:00:00Z"), End: at("2027-01-01T00:00:00Z"), Jitter: time.Minute, Seed: "default/a/b",
		Exclude: []schedule.Exclusion{{Date: "2026-05-01"}},
	}
	trigger, err := schedule.Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		at    string
		fires bool
		note  string
	}{
		{"2026-06-01T00:00:00Z", true, ""},
		{"2026-03-29T01:00:00Z", true, ""}, // 03:00, not the lost 02:00
		{"2026-10-25T00:00:00Z", true, "this is the first time"},
		{"2026-10-25T01:00:00Z", false, "does not run the second time"},
		{"2026-06-01T00:00:01Z", false, "not an instant"},
		{"2026-06-01T00:00:00.5Z", false, "not an instant"},
		{"2026-05-01T00:00:00Z", false, "excluded: 2026-05-01"},
		{"2025-06-01T00:00:00Z", false, "outside start_time and end_time"},
		{"2027-06-01T00:00:00Z", false, "outside start_time and end_time"},
		{"0001-01-01T00:00:00Z", false, "not an instant"},
	}
	for _, c := range cases {
		x := trigger.Explain(at(c.at))
		if x.Fires != c.fires || !strings.Contains(x.Note, c.note) || c.note == "" && x.Note != "" {
			t.Errorf("%s: %+v; want fires %v, note %q", c.at, x, c.fires, c.note)
		}
		if due := trigger.Due(x.Nominal).Sub(x.Nominal); x.Fires && x.Jitter != due || !x.Fires && x.Jitter != 0 {
			t.Errorf("%s: jitter %v, Due says %v", c.at, x.Jitter, due)
		}
	}
}
