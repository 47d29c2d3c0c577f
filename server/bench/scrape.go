package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// scrape returns what the first primary tells of itself under a name at /metrics, all
// labels together.
func (c *Cluster) scrape(ctx context.Context, name string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, oneCall)
	defer cancel()
	url := "http://" + c.Local.Webs()[0] + "/metrics"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", url, err)
	}
	defer func() { _ = resp.Body.Close() }() // it was read only
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("read %s: %s", url, resp.Status)
	}
	value, err := sample(resp.Body, name)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", url, err)
	}
	return value, nil
}

// sample sums the samples of a name, in the text format of Prometheus.
func sample(text io.Reader, name string) (sum float64, err error) {
	found := false
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || !strings.HasPrefix(rest, " ") && !strings.HasPrefix(rest, "{") {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("read %q: %w", lines.Text(), err)
		}
		sum, found = sum+value, true
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	if !found {
		return 0, fmt.Errorf("nothing is told under %s", name)
	}
	return sum, nil
}
