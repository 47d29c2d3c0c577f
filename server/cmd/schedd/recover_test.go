package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/settings"
)

// A primary that is stopped is made the leader of a group of one, with all that it
// had, and at another address.
func TestRecover(t *testing.T) {
	dir := t.TempDir()
	line := []string{"recover", "--node-id", "p1", "--data-dir", dir, "--cluster-advertise", "p1.example:7420"}
	says(t, 1, []string{"holds no data of a primary"}, line...)

	p := start(t, dir)
	p.put("one")
	says(t, 1, []string{"another process uses it: stop that one first"}, line...)
	if is := p.has(); is != "one" {
		t.Errorf("there are %s", is)
	}
	p.stop()
	says(t, 1, []string{`it is the directory of primary "p1"`}, "recover", "--node-id", "p2", "--data-dir", dir)
	if said := says(t, 0, []string{"p1 at p1.example:7420", "ends in term 2 at entry"}, append(line, "--dry-run")...); strings.Contains(said, "Done") {
		t.Errorf("it did it: %s", said)
	}
	says(t, 0, []string{"p1 at p1.example:7420", "Done", "It leads at once"}, line...)

	p = start(t, dir)
	if is := p.has(); is != "one" {
		t.Errorf("there are %s", is)
	}
	p.put("two") // it leads
	r, err := p.cluster.GetStatus(t.Context(), &schedv1.GetStatusRequest{})
	if err != nil || len(r.GetStatus().GetPrimaries()) != 1 {
		t.Errorf("the group is %v, %v", r, err)
	}
	p.stop()

	// With another one, which is not there, nobody leads.
	says(t, 0, []string{"p2 at h:2", "On p2: put an empty directory", "--join"},
		"recover", "--node-id", "p1", "--data-dir", dir, "--peer", "p1=h:1", "--peer", "p2=h:2")
	p = start(t, dir)
	r, err = p.cluster.GetStatus(t.Context(), &schedv1.GetStatusRequest{})
	if err == nil && r.GetStatus().GetLeaderId() != "" {
		t.Errorf("one of two leads: %v", r)
	}
}

func TestRecoverWrongUsage(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "schedd.yaml")
	text := "node_id: p7\ndata_dir: " + dir + "\napi_addr: 127.0.0.1:1\ncluster_addr: 0.0.0.0:7420\ncluster_key: k\ncluster_advertise: p7.example:7420\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// The file of the primary is good for this, too.
	says(t, 1, []string{`log of primary "p7"`, "holds no data of a primary"}, "recover", "--config", file, "--dry-run")
	for _, test := range []struct{ line, want string }{
		{"recover now", "unexpected argument"},
		{"recover --peer p1", "want ID=HOST:PORT"},
		{"recover --peer p1=h", `"h" is no address`},
		{"recover --peer p1=0.0.0.0:7420", "that others can dial"},
		{"recover --peer p1=h:1 --peer p1=h:2", "named twice"},
		{"recover --peer p1=h:1,p2=h:1", "another one has its address"},
		{"recover --node-id p1 --peer p2=h:2", "p1 itself has to be in the group"},
		{"recover --node-id p/1", "no name for a primary"},
		{"recover --node-id p1 --cluster-addr 0.0.0.0:7420 --insecure", "--cluster-advertise"},
		{"recover --per p1=h:1", "did you mean --peer?"},
	} {
		says(t, settings.ExitUsage, []string{test.want}, append(strings.Fields(test.line), "--data-dir", dir)...)
	}
}
