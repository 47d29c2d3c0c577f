package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// guides are what people copy from.
var guides = []string{
	"../README.md", "README.md", "load-balancers/README.md", "../docs/behind-a-load-balancer.md", "../docs/operating-a-cluster.md", "../docs/upgrading-workers.md", "../docs/worker-policy.md", "../docs/guarantees.md", "../docs/performance.md", "../docs/testing.md",
}

// The services that can be called; naming them links them.
var _ = []protoreflect.FileDescriptor{schedv1.File_schedd_v1_cluster_proto, grpc_health_v1.File_grpc_health_v1_health_proto}

var grpcurl = regexp.MustCompile(`grpcurl -plaintext(?: -d '([^']*)')? \S+ ([a-z0-9.]+\.[A-Z]\w+)/(\w+)`)

// Each call in a guide is of a method that there is, with fields that it has.
func TestGuidesCallWhatThereIs(t *testing.T) {
	calls := 0
	for _, guide := range guides {
		for _, m := range grpcurl.FindAllStringSubmatch(read(t, guide), -1) {
			calls++
			d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(m[2]))
			if err != nil {
				t.Errorf("%s: %s: %v", guide, m[0], err)
				continue
			}
			method := d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(m[3]))
			if method == nil {
				t.Errorf("%s: %s has no %s", guide, m[2], m[3])
				continue
			}
			if m[1] == "" {
				continue
			}
			if err := protojson.Unmarshal([]byte(m[1]), dynamicpb.NewMessage(method.Input())); err != nil {
				t.Errorf("%s: %s: %v", guide, m[0], err)
			}
		}
	}
	if calls < 10 {
		t.Errorf("only %d calls were found in %v", calls, guides)
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// Each link leads to a file, or a heading, that there is.
func TestGuidesLinkToWhatThereIs(t *testing.T) {
	for _, guide := range guides {
		for _, m := range link.FindAllStringSubmatch(read(t, guide), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, fragment, _ := strings.Cut(m[1], "#")
			target := guide
			if file != "" {
				target = filepath.Join(filepath.Dir(guide), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", guide, m[1], err)
			} else if fragment != "" && !anchors(read(t, target))[fragment] {
				t.Errorf("%s links to %s, and there is no such heading", guide, m[1])
			}
		}
	}
}

// anchors returns what headings are linked to by.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		words := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all[strings.ReplaceAll(words, " ", "-")] = true
	}
	return all
}
