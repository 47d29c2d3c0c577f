package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/server"
)

// snapshotHelp is the beginning of the help of each command about snapshots.
var snapshotHelp = map[string]string{
	"save": `schedd snapshot save [flags] FILE

Save the whole state of a group of primaries in a file: jobs, runs, workers and
the ledger, as they are at one moment. The output of runs is not in it.`,
	"restore": `schedd snapshot restore [flags] FILE

Put the state in a file in the place of that which a group of primaries has. The
primaries stay who they are; what was done since the file was saved is forgotten.
A state of more than 2 GiB is refused.`,
	"inspect": `schedd snapshot inspect FILE

Check a file that was saved, and say what it holds. It needs no primary.`,
}

// snapshotPiece is how much of a snapshot one message holds.
const snapshotPiece = 256 << 10

// snapshotOptions are the settings of the commands about snapshots.
type snapshotOptions struct {
	server          string
	insecure, force bool
	file            string
}

// snapshotFlags returns the settings of one of them.
func snapshotFlags(command string) (*snapshotOptions, *flag.FlagSet) {
	o := &snapshotOptions{}
	fs := flag.NewFlagSet("schedd snapshot "+command, flag.ContinueOnError)
	if command != "inspect" {
		fs.StringVar(&o.server, "server", server.DefaultConfig().APIAddr, "`address` of the API of any primary, or of the load balancer")
		fs.BoolVar(&o.insecure, "insecure", false, "talk to another host without TLS and authentication")
	}
	if command == "save" {
		fs.BoolVar(&o.force, "force", false, "write over a file that is there")
	}
	return o, fs
}

// runSnapshot is the command snapshot.
func runSnapshot(ctx context.Context, args []string, out io.Writer) error {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	help, known := snapshotHelp[command]
	if !known {
		switch command {
		case "help", "-h", "-help", "--help":
			_, err := fmt.Fprintln(out, strings.Join([]string{snapshotHelp["save"], snapshotHelp["restore"], snapshotHelp["inspect"]}, "\n\n"))
			return err
		}
		return settings.Errorf("snapshot %s: there are save, restore and inspect; --help tells more", command)
	}
	o, fs := snapshotFlags(command)
	args, files := operands(fs, args[1:])
	err := settings.Parse(fs, args, envPrefix, allFlags()...)
	switch {
	case errors.Is(err, settings.ErrHelp):
		return settings.Usage(fs, out, envPrefix, help)
	case err != nil:
		return err
	case len(files) != 1:
		return settings.Errorf("snapshot %s: name one file, got %q", command, files)
	}
	o.file = files[0]
	if command == "inspect" {
		info, err := inspect(o.file)
		if err != nil {
			return err
		}
		return describe(out, info)
	}
	if err := mayCall(o.server, o.insecure); err != nil {
		return err
	}
	conn, err := grpc.NewClient(o.server, append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return settings.Errorf("--server: %w", err)
	}
	defer func() { _ = conn.Close() }() // nothing is under way by then
	if command == "save" {
		return o.save(ctx, schedv1.NewClusterServiceClient(conn), out)
	}
	return o.restore(ctx, schedv1.NewClusterServiceClient(conn), out)
}

// operands parts arguments that are no flags from those that are. They may stand
// anywhere; behind "--" all are operands.
func operands(fs *flag.FlagSet, args []string) (flags, rest []string) {
	probe := flag.NewFlagSet("", flag.ContinueOnError)
	probe.SetOutput(io.Discard)
	fs.VisitAll(func(f *flag.Flag) { probe.Var(&ignored{f.Value}, f.Name, "") })
	for len(args) > 0 {
		if probe.Parse(args) != nil {
			return append(flags, args...), rest // settings.Parse says what is wrong
		}
		n := len(args) - probe.NArg()
		flags = append(flags, args[:n]...)
		if n > 0 && args[n-1] == "--" {
			return flags[:len(flags)-1], append(rest, args[n:]...)
		}
		if args = args[n:]; len(args) > 0 {
			rest, args = append(rest, args[0]), args[1:]
		}
	}
	return flags, rest
}

// ignored is a flag that takes whatever the one it stands for would be given.
type ignored struct{ flag.Value }

// Set implements [flag.Value].
func (*ignored) Set(string) error { return nil }

// IsBoolFlag tells whether the flag has no value of its own.
func (i *ignored) IsBoolFlag() bool {
	b, ok := i.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// mayCall tells why the API at an address can't be called, or should not be.
func mayCall(address string, insecure bool) error {
	host, port, err := net.SplitHostPort(address)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || host == "" || bad != nil || n == 0 {
		return settings.Errorf("--server: %q is not host:port, such as schedd.example.com:7421", address)
	}
	ip, err := netip.ParseAddr(host)
	if insecure || host == "localhost" || err == nil && ip.IsLoopback() {
		return nil
	}
	return settings.Errorf("--server: %s is another host, and there is no TLS yet: reach it through a tunnel (WireGuard, ssh) "+
		"that ends on 127.0.0.1, or, on a network that you trust, give --insecure", address)
}

// failed says that a call did not come to its end, and why.
func (o *snapshotOptions) failed(what string, err error) error {
	return fmt.Errorf("%s %s: %s (%s)", what, o.server, status.Convert(err).Message(), status.Code(err))
}

// save writes to another file first, so that one that is there is whole, whatever
// happens.
func (o *snapshotOptions) save(ctx context.Context, c schedv1.ClusterServiceClient, out io.Writer) error {
	_, err := os.Lstat(o.file)
	switch {
	case err == nil && !o.force:
		return fmt.Errorf("%s exists: choose another name, or write over it with --force", o.file)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("save a snapshot: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(o.file), ".schedd-snapshot-")
	if err != nil {
		return fmt.Errorf("save a snapshot: %w", err)
	}
	defer func() { _ = os.Remove(temp.Name()) }() // it has another name by then if all went well
	if err := errors.Join(o.receive(ctx, c, temp), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	info, err := inspect(temp.Name())
	if err != nil {
		return fmt.Errorf("what %s sent is no snapshot, try again: %w", o.server, err)
	}
	if err := os.Rename(temp.Name(), o.file); err != nil {
		return fmt.Errorf("save a snapshot: %w", err)
	}
	if err := syncDir(filepath.Dir(o.file)); err != nil {
		return fmt.Errorf("save a snapshot: %w", err)
	}
	_, err = fmt.Fprintf(out, "saved %s\n", o.file)
	return errors.Join(err, describe(out, info), mayRestore(info))
}

// receive writes what the leader sends.
func (o *snapshotOptions) receive(ctx context.Context, c schedv1.ClusterServiceClient, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.SaveSnapshot(ctx, &schedv1.SaveSnapshotRequest{})
	if err != nil {
		return o.failed("save a snapshot of", err)
	}
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return o.failed("save a snapshot of", err)
		}
		if _, err := w.Write(piece.GetData()); err != nil {
			return fmt.Errorf("save a snapshot: %w", err)
		}
	}
}

// syncDir makes sure that a name in a directory lasts.
func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// inspect reads a file that was saved, wholly.
func inspect(name string) (raftstore.SnapshotInfo, error) {
	f, err := os.Open(name)
	if err != nil {
		return raftstore.SnapshotInfo{}, fmt.Errorf("inspect a snapshot: %w", err)
	}
	defer func() { _ = f.Close() }() // it was read only
	info, err := raftstore.InspectSnapshot(f)
	if err != nil {
		return info, fmt.Errorf("inspect %s: %w", name, err)
	}
	return info, nil
}

// describe tells what a snapshot is of.
func describe(out io.Writer, info raftstore.SnapshotInfo) error {
	var group []string
	for _, v := range info.Servers {
		m := v.ID + " at " + v.Address
		if !v.Voter {
			m += " (no vote)"
		}
		group = append(group, m)
	}
	_, err := fmt.Fprintf(out, `  cluster  %s
  taken    %s, at log entry %d of term %d
  holds    %d jobs, %d runs, %d workers; %d bytes
  group    of then: %s
`, info.ClusterID, info.Taken.UTC().Format(time.RFC3339), info.Index, info.Term,
		info.Jobs, info.Runs, info.Workers, info.Size, strings.Join(group, ", "))
	return err
}

// mayRestore tells why a primary would not take a snapshot that is whole. Whoever
// saves it has to know that, too.
func mayRestore(info raftstore.SnapshotInfo) error {
	if info.Size <= raftstore.MaxSnapshot {
		return nil
	}
	return fmt.Errorf("%w: it has %d bytes, of %d that are taken: keep fewer runs, and save another", raftstore.ErrSnapshotTooLarge, info.Size, int64(raftstore.MaxSnapshot))
}

// restore checks the file before it is sent: the leader does, too, but after all
// of it has come.
func (o *snapshotOptions) restore(ctx context.Context, c schedv1.ClusterServiceClient, out io.Writer) error {
	info, err := inspect(o.file)
	if err == nil {
		err = mayRestore(info)
	}
	if err != nil {
		return err
	}
	f, err := os.Open(o.file)
	if err != nil {
		return fmt.Errorf("restore a snapshot: %w", err)
	}
	defer func() { _ = f.Close() }() // it was read only
	group, err := o.send(ctx, c, f)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "restored %s: all %d primaries have, or get, the state of then\n", o.file, len(group.GetPrimaries()))
	return errors.Join(err, describe(out, info))
}

// send has the leader restore what it is sent.
func (o *snapshotOptions) send(ctx context.Context, c schedv1.ClusterServiceClient, r io.Reader) (*schedv1.ClusterStatus, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const what = "restore a snapshot through"
	stream, err := c.RestoreSnapshot(ctx)
	if err != nil {
		return nil, o.failed(what, err)
	}
	for done := false; !done; {
		piece := make([]byte, snapshotPiece)
		n, err := io.ReadFull(r, piece)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			done = true
		case err != nil:
			return nil, fmt.Errorf("restore a snapshot: %w", err)
		}
		if stream.Send(&schedv1.RestoreSnapshotRequest{Data: piece[:n]}) != nil {
			break // the answer says why
		}
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return nil, o.failed(what, err)
	}
	return answer.GetStatus(), nil
}
