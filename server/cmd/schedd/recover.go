package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/raftstore"
)

const recoverSummary = `schedd recover --data-dir DIR --node-id ID [--peer ID=HOST:PORT]... [flags]

Make a primary go on after most of its group are lost for good: alone, or with
those that are named. It is the last resort: what the lost ones had agreed on, and
this one had not learned of, is lost. The primary has to be stopped. The settings
of serve are understood as well, so that its file can be given.`

// recoverOptions are the settings of recover: those of serve say where the primary
// is.
type recoverOptions struct {
	*options
	peers  peers
	dryRun bool
}

// recoverFlags returns the defaults, the flags that change them, and those among
// them that matter.
func recoverFlags() (o *recoverOptions, fs, matter *flag.FlagSet) {
	serve, fs := serveFlags()
	o = &recoverOptions{options: serve}
	fs.Var(&o.peers, "peer", "`ID=HOST:PORT` of a primary of the group to be, itself included; once for each (default: itself alone)")
	fs.BoolVar(&o.dryRun, "dry-run", false, "only look at the data, and say what would be done")
	matter = flag.NewFlagSet("schedd recover", flag.ContinueOnError)
	for _, name := range []string{"config", "node-id", "data-dir", "cluster-addr", "cluster-advertise", "peer", "dry-run"} {
		f := fs.Lookup(name)
		matter.Var(f.Value, f.Name, f.Usage)
	}
	return o, fs, matter
}

// peers is primaries as they are given to --peer.
type peers []raftstore.Server

// String implements [flag.Value].
func (p *peers) String() string {
	var list []string
	for _, v := range *p {
		list = append(list, v.ID+"="+v.Address)
	}
	return strings.Join(list, ",")
}

// Set implements [flag.Value]: it adds to what was given before.
func (p *peers) Set(text string) error {
	for item := range strings.SplitSeq(text, ",") {
		id, address, ok := strings.Cut(strings.TrimSpace(item), "=")
		if !ok || id == "" {
			return fmt.Errorf("want ID=HOST:PORT")
		}
		if err := dialable(address); err != nil {
			return err
		}
		if slices.ContainsFunc(*p, func(v raftstore.Server) bool { return v.ID == id || v.Address == address }) {
			return errors.New("it is named twice, or another one has its address")
		}
		*p = append(*p, raftstore.Server{ID: id, Address: address, Voter: true})
	}
	return nil
}

// dialable tells why other primaries could not dial an address.
func dialable(address string) error {
	host, port, err := net.SplitHostPort(address)
	n, bad := strconv.ParseUint(port, 10, 16)
	ip, noIP := netip.ParseAddr(host)
	if err != nil || bad != nil || n == 0 || host == "" || noIP == nil && ip.IsUnspecified() {
		return fmt.Errorf("%q is no address that others can dial, want host:port", address)
	}
	return nil
}

// runRecover is the command recover.
func runRecover(args []string, out, logs io.Writer) error {
	o, fs, matter := recoverFlags()
	if err := settings.Parse(fs, args, envPrefix, allFlags()...); err != nil {
		if errors.Is(err, settings.ErrHelp) {
			return settings.Usage(matter, out, envPrefix, recoverSummary)
		}
		return err
	}
	log, err := settings.Logger(logs, o.log.level, o.log.format)
	if err != nil {
		return err
	}
	if err := o.Validate(); err != nil {
		return settings.Errorf("%w", err)
	}
	group, err := o.group()
	if err != nil {
		return err
	}
	c := raftstore.Config{NodeID: o.NodeID, Dir: filepath.Join(o.DataDir, "raft"), Log: log}
	term, index, err := raftstore.LogEnd(c)
	if err != nil {
		return err
	}
	if err := o.announce(out, group, term, index); err != nil || o.dryRun {
		return err
	}
	err = raftstore.Recover(c, group)
	if err != nil {
		return err
	}
	return o.whatNext(out, group)
}

// group returns the primaries that are to be one.
func (o *recoverOptions) group() ([]raftstore.Server, error) {
	if len(o.peers) == 0 {
		address := cmp.Or(o.Cluster.Advertise, o.Cluster.Addr)
		if err := dialable(address); err != nil {
			return nil, settings.Errorf("--cluster-advertise: %w", err)
		}
		return []raftstore.Server{{ID: o.NodeID, Address: address, Voter: true}}, nil
	}
	if !slices.ContainsFunc(o.peers, func(v raftstore.Server) bool { return v.ID == o.NodeID }) {
		return nil, settings.Errorf("--peer: %s itself has to be in the group: name it too, as %s=HOST:PORT", o.NodeID, o.NodeID)
	}
	return o.peers, nil
}

// announce says what will be done.
func (o *recoverOptions) announce(out io.Writer, group []raftstore.Server, term, index uint64) error {
	var list []string
	for _, v := range group {
		list = append(list, v.ID+" at "+v.Address)
	}
	_, err := fmt.Fprintf(out, `The data in %s, of primary %s, become those of a group of %d:
  %s
All that is in its log counts as agreed. What others agreed on without it is lost.
Its log ends in term %d at entry %d. If others survive, ask each with --dry-run, and
recover the one with the greatest term, and the greatest entry in that.
`, o.DataDir, o.NodeID, len(group), strings.Join(list, "\n  "), term, index)
	return err
}

// whatNext says what to do when it is done.
func (o *recoverOptions) whatNext(out io.Writer, group []raftstore.Server) error {
	var others []string
	for _, v := range group {
		if v.ID != o.NodeID {
			others = append(others, v.ID)
		}
	}
	next := "  1. Start it as before. It leads at once, by itself.\n" +
		"  2. Add others, with empty data directories and --join.\n"
	if len(others) > 0 {
		next = fmt.Sprintf("  1. On %s: put an empty directory in the place of the data directory.\n"+
			"  2. Start all of them, with --join. They get the data from this one.\n", strings.Join(others, " and "))
	}
	_, err := fmt.Fprintf(out, "Done. What to do next:\n%s"+
		"Never start one of the old group that is not in the new one with its old data: it\n"+
		"could form a majority with others of that kind, and go on as if nothing had been.\n", next)
	return err
}
