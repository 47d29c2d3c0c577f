package harm

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Of a primary is seen where it listens, and where it has only connections is not.
func TestEvidenceOfAPrimary(t *testing.T) {
	var held []*os.File
	var want []netip.AddrPort
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", at)
		if err != nil {
			t.Logf("not tried: %v", err) // there may be no IPv6
			continue
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		if at == "127.0.0.1:0" { // this process has a connection, and the pretender not
			c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
		}
		t.Cleanup(func() { _ = l.Close(); _ = f.Close() })
		held, want = append(held, f), append(want, l.Addr().(*net.TCPAddr).AddrPort())
	}
	other, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	file := filepath.Join(t.TempDir(), "pid")
	pretendWith(t, held, file, "schedd", "serve")
	p, err := Find(file)
	if err != nil {
		t.Fatal(err)
	}
	e, err := p.Evidence()
	slices.SortFunc(e.Listens, netip.AddrPort.Compare)
	slices.SortFunc(want, netip.AddrPort.Compare)
	if err != nil || !slices.Equal(e.Listens, want) {
		t.Errorf("%v, %v; want %v", e.Listens, err, want)
	}
}

// Of a worker is seen whose data directory it has locked; a lock without a key beside
// it, and another file than the path leads to, show nothing.
func TestEvidenceOfAWorker(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, test := range []struct {
		command, lock, key string
		moved              bool
		want               ed25519.PublicKey
		fails              bool
	}{
		{"run", "lock", string(text), false, public, false},
		{"runner", "runner/lock", string(text), false, public, false},
		{"runner", "elsewhere/lock", string(text), false, nil, false},
		{"run", "log", string(text), false, nil, false},
		{"run", "lock", "", false, nil, false},
		{"run", "lock", string(text), true, nil, false},
		{"run", "lock", "no key", false, nil, true},
	} {
		dir := t.TempDir()
		lock := filepath.Join(dir, test.lock)
		if err := os.MkdirAll(filepath.Dir(lock), 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(lock)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		if test.key != "" {
			if err := os.WriteFile(filepath.Join(dir, keyFile), []byte(test.key), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if test.moved {
			if err := os.Remove(lock); err != nil {
				t.Fatal(err)
			}
		}
		file := filepath.Join(t.TempDir(), "pid")
		pretendWith(t, []*os.File{f}, file, "schedagent", test.command)
		p, err := Find(file)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := p.Evidence(); !e.Key.Equal(test.want) || (err != nil) != test.fails {
			t.Errorf("%+v: %x, %v", test, e.Key, err)
		}
	}
}

// The kernel writes addresses as numbers of the machine. What does not listen, or is
// another process's, is left out; what can't be read is an error.
func TestListeners(t *testing.T) {
	word := func(a, b, c, d byte) string {
		return fmt.Sprintf("%08X", binary.NativeEndian.Uint32([]byte{a, b, c, d}))
	}
	line := func(at, state, inode string) string {
		return "   0: " + at + " 00000000:0000 " + state + " 00000000:00000000 00:00000000 00000000  1000        0 " + inode + " 1 0000 100 0 0 10 0\n"
	}
	head := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	ours := map[string]bool{"7": true}
	table := head + line(word(10, 0, 0, 1)+":1CFD", "0A", "7") + line(word(10, 0, 0, 1)+":1CFE", "01", "7") + line(word(10, 0, 0, 1)+":1CFF", "0A", "8") +
		line(word(0x20, 1, 0xd, 0xb8)+word(0, 0, 0, 0)+word(0, 0, 0, 0)+word(0, 0, 0, 9)+":0001", "0A", "7")
	got, err := listeners([]byte(table), ours)
	if want := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:7421"), netip.MustParseAddrPort("[2001:db8::9]:1")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"x:1CFD", "0A:1CFD", "0100000A", "0100000A:x", "0100000A:11CFD"} {
		if got, err := listeners([]byte(head+line(bad, "0A", "7")), ours); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}
