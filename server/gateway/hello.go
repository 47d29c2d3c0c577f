package gateway

import (
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/api/validate/content"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// What a worker may say of itself.
const (
	maxName   = 253 // bytes of a name: that of any host fits
	maxWord   = 128 // bytes of a version, an address and the like
	maxNote   = 512 // bytes of a sentence
	maxLabels = 64
	maxSlots  = 10_000
	maxFaults = 10 // told at once
)

// revision returns the highest revision of the session protocol that both ends
// speak, or why there is none.
func revision(h *agentv1.Hello) (uint32, error) {
	low, high := max(h.GetMinRevision(), wire.MinRevision), min(h.GetMaxRevision(), wire.MaxRevision)
	if low <= high {
		return high, nil
	}
	older := "worker"
	if h.GetMinRevision() > wire.MaxRevision {
		older = "primary"
	}
	return 0, fmt.Errorf("the worker speaks revisions %d to %d of the session protocol, this primary %d to %d: upgrade the %s",
		h.GetMinRevision(), h.GetMaxRevision(), wire.MinRevision, wire.MaxRevision, older)
}

// checkHello returns all that is wrong with a Hello, or nil.
func checkHello(h *agentv1.Hello) error {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }

	if n := len(h.GetPublicKey()); n != ed25519.PublicKeySize {
		fault("public_key has %d bytes, want %d", n, ed25519.PublicKeySize)
	}
	if h.GetSlots() < 1 || h.GetSlots() > maxSlots {
		fault("slots is %d, want 1 to %d", h.GetSlots(), maxSlots)
	}
	for _, f := range []struct {
		name, value string
		min, max    int
	}{
		{"name", h.GetName(), 1, maxName},
		{"instance", h.GetInstance(), 1, maxWord},
		{"boot_id", h.GetBootId(), 0, maxWord},
		{"advertise_hostname", h.GetAdvertiseHostname(), 0, maxName},
		{"advertise_ip", h.GetAdvertiseIp(), 0, maxWord},
		{"version", h.GetVersion(), 0, maxWord},
		{"os", h.GetOs(), 0, maxWord},
		{"arch", h.GetArch(), 0, maxWord},
		{"enforcement.note", h.GetEnforcement().GetNote(), 0, maxNote},
	} {
		if n := len(f.value); n < f.min || n > f.max {
			fault("%s has %d bytes, want %d to %d", f.name, n, f.min, f.max)
		} else if strings.ContainsFunc(f.value, unprintable) {
			fault("%s is %q, want only printable characters", f.name, f.value)
		}
	}
	faults = append(faults, checkLabels(h.GetLabels())...)
	return sum(faults)
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// checkLabels returns what is wrong with labels, which follow the syntax of
// Kubernetes, so that its selectors can name them.
func checkLabels(labels map[string]string) []string {
	if len(labels) > maxLabels {
		return []string{fmt.Sprintf("labels has %d entries, want at most %d", len(labels), maxLabels)}
	}
	var faults []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		value := labels[key]
		for _, why := range content.IsLabelKey(key) {
			faults = append(faults, fmt.Sprintf("labels[%.80q]: the key: %s", key, brief(why)))
		}
		for _, why := range content.IsLabelValue(value) {
			faults = append(faults, fmt.Sprintf("labels[%.80q] = %.80q: the value: %s", key, value, brief(why)))
		}
	}
	return faults
}

// brief leaves examples and regular expressions out of what is said of a label.
func brief(why string) string {
	why, _, _ = strings.Cut(why, " (e.g. ")
	return why
}

// sum makes one error of the first few faults.
func sum(faults []string) error {
	if len(faults) == 0 {
		return nil
	}
	more := ""
	if n := len(faults); n > maxFaults {
		faults, more = faults[:maxFaults], fmt.Sprintf("; and %d more", n-maxFaults)
	}
	return fmt.Errorf("%s%s", strings.Join(faults, "; "), more)
}
