package harm

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/schedd/schedd/server/torture"
)

// Evidence implements [torture.Stranger].
func (p *Process) Evidence() (e torture.Evidence, err error) {
	there, _, err := p.open()
	if err != nil {
		return e, err
	}
	defer func() { _ = there.Release() }() // it is not ours to wait for
	pid := there.Pid
	held, err := files(pid)
	if err != nil {
		return e, err
	}
	if p.part == torture.Primary {
		e.Listens, err = listens(pid, held)
	} else {
		e.Key, err = keyOf(held)
	}
	if err != nil {
		return e, fmt.Errorf("look at process %d, which %s names: %w", pid, p.path, err)
	}
	p.known = pid
	return e, nil
}

// file is what a process has open.
type file struct {
	at     string // in /proc
	target string // its path, or "socket:[INODE]"
}

// files returns what a process has open.
func files(pid int) (all []file, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look which files process %d has open: %w; be root, or the user of the process", pid, err)
	}
	for _, entry := range entries {
		at := filepath.Join(dir, entry.Name())
		if target, err := os.Readlink(at); err == nil { // else it was closed meanwhile
			all = append(all, file{at, target})
		}
	}
	return all, nil
}

// listens returns where a process takes TCP connections. It has to be in the same
// network as this one: elsewhere the same address is another's.
func listens(pid int, held []file) (all []netip.AddrPort, err error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	theirs, err := os.Readlink(filepath.Join(proc, "ns/net"))
	if err != nil {
		return nil, fmt.Errorf("look in which network it is: %w", err)
	}
	if ours, err := os.Readlink("/proc/self/ns/net"); err != nil || ours != theirs {
		return nil, errors.Join(fmt.Errorf("it is in another network namespace than this torture: start the torture in that one, by nsenter --net --target %d", pid), err)
	}
	its := map[string]bool{}
	for _, f := range held {
		if inode, ok := strings.CutPrefix(f.target, "socket:["); ok {
			its[strings.TrimSuffix(inode, "]")] = true
		}
	}
	for _, name := range []string{"tcp", "tcp6"} {
		table, err := os.ReadFile(filepath.Join(proc, "net", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("look where it listens: %w", err)
		}
		found, err := listeners(table, its)
		if err != nil {
			return nil, fmt.Errorf("look where it listens, in %s: %w", name, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// listeners returns the addresses of the sockets that listen, by the kernel's table of
// TCP sockets (proc_pid_net(5)), of those whose inodes are given.
func listeners(table []byte, inodes map[string]bool) (all []netip.AddrPort, err error) {
	const (
		local, state, inode, fields = 1, 3, 9, 10
		listening                   = "0A"
	)
	for line := range bytes.Lines(table) {
		f := strings.Fields(string(line))
		if len(f) < fields || f[state] != listening || !inodes[f[inode]] {
			continue
		}
		at, err := kernelAddress(f[local])
		if err != nil {
			return nil, err
		}
		all = append(all, at)
	}
	return all, nil
}

// kernelAddress reads an address as the kernel writes it: each 32 bits of it as a
// number of this machine, in hex, and the port.
func kernelAddress(text string) (none netip.AddrPort, err error) {
	address, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(address)
	if err != nil {
		return none, fmt.Errorf("address %q: %w", text, err)
	}
	for at := 0; at+4 <= len(raw); at += 4 {
		binary.NativeEndian.PutUint32(raw[at:], binary.BigEndian.Uint32(raw[at:]))
	}
	ip, ok := netip.AddrFromSlice(raw)
	if !ok {
		return none, fmt.Errorf("address %q has %d bytes", text, len(raw))
	}
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return none, fmt.Errorf("address %q: port: %w", text, err)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(number)), nil
}

// What a worker's data directory has in it: a lock that its agent holds, one that its
// runner holds, and the key of the worker.
const (
	lockFile  = "lock"
	runnerDir = "runner"
	keyFile   = "identity.key"
)

// keyOf returns the public key of the worker whose data directory is locked by who has
// these files open; nil when there is none.
func keyOf(held []file) (ed25519.PublicKey, error) {
	for _, f := range held {
		dir, name := filepath.Split(f.target)
		if name != lockFile {
			continue
		}
		if dir = filepath.Clean(dir); filepath.Base(dir) == runnerDir {
			dir = filepath.Dir(dir)
		}
		// By its path it might be a file of another root directory.
		opened, err := os.Stat(f.at)
		if err != nil {
			continue // it was closed meanwhile
		}
		if named, err := os.Stat(f.target); err != nil || !os.SameFile(opened, named) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, keyFile))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look which worker it is: %w", err)
		}
		return publicKey(text)
	}
	return nil, nil
}

// publicKey is that of a worker's key file.
func publicKey(text []byte) (ed25519.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("look which worker it is: its key is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("look which worker it is: read its key: %w", err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("look which worker it is: its key is none of Ed25519")
	}
	return private.Public().(ed25519.PublicKey), nil
}
