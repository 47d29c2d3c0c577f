package deploy_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// manifests returns all documents of the Kubernetes manifests as "Kind name".
func manifests(t *testing.T) map[string]tree {
	t.Helper()
	files, err := filepath.Glob("kubernetes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	all := map[string]tree{}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		for _, doc := range documents(t, file) {
			doc.get("apiVersion")
			name := doc.get("kind").text() + " " + doc.get("metadata", "name").text()
			if _, twice := all[name]; twice {
				t.Errorf("%s is there twice", name)
			}
			if doc.get("metadata").has("namespace") {
				t.Errorf("%s names a namespace, which is for the user to choose", name)
			}
			all[name] = doc
		}
	}
	return all
}

// What is no example is in the kustomization.
func TestKustomizationHasAll(t *testing.T) {
	files, err := filepath.Glob("kubernetes/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	kustomization := documents(t, "kubernetes/kustomization.yaml")[0]
	var want []string
	for _, file := range files {
		name := filepath.Base(file)
		if name != "kustomization.yaml" && !strings.HasSuffix(name, ".example.yaml") {
			want = append(want, name)
		}
	}
	if got := kustomization.get("resources").texts(); !slices.Equal(got, want) {
		t.Errorf("kustomization.yaml has %v, and in its directory there are %v", got, want)
	}
	images := kustomization.get("images").pick("name")
	if got := primariesPod(t).get("containers").only().get("image").text(); !slices.Contains(images, got) {
		t.Errorf("the primaries' image is %s, and kustomization.yaml replaces %v", got, images)
	}
}

// manifest returns one of them.
func manifest(t *testing.T, name string) tree {
	t.Helper()
	m, ok := manifests(t)[name]
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	return m
}

func primariesPod(t *testing.T) tree {
	t.Helper()
	return manifest(t, "StatefulSet schedd").get("spec", "template", "spec")
}

// Selectors select the pods that they are meant for, and no port has a name that
// no container has.
func TestSelectorsSelect(t *testing.T) {
	for name, of := range map[string]string{
		"StatefulSet schedd":         "StatefulSet schedd",
		"PodDisruptionBudget schedd": "StatefulSet schedd",
		"Service schedd":             "StatefulSet schedd",
		"Service schedd-primaries":   "StatefulSet schedd",
		"Deployment schedagent":      "Deployment schedagent",
	} {
		labels := manifest(t, of).get("spec", "template", "metadata", "labels")
		selector := manifest(t, name).get("spec", "selector")
		if selector.has("matchLabels") {
			selector = selector.get("matchLabels")
		}
		if !selector.within(labels) {
			t.Errorf("%s selects %v, and the pods of %s have %v", name, selector.v, of, labels.v)
		}
		if !strings.HasPrefix(name, "Service ") {
			continue
		}
		ports := manifest(t, of).get("spec", "template", "spec", "containers").only().get("ports").pick("name")
		for _, target := range manifest(t, name).get("spec", "ports").pick("targetPort") {
			if !slices.Contains(ports, target) {
				t.Errorf("%s has port %s, and the container %v", name, target, ports)
			}
		}
	}
	pod := primariesPod(t)
	apart := pod.get("affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution").only()
	if labels := manifest(t, "StatefulSet schedd").get("spec", "template", "metadata", "labels"); !apart.get("labelSelector", "matchLabels").within(labels) {
		t.Error("primaries don't keep away from primaries")
	}
}

// Volumes that are mounted exist, and are mounted; what they are made of exists.
func TestVolumesExist(t *testing.T) {
	for _, name := range []string{"StatefulSet schedd", "Deployment schedagent"} {
		spec := manifest(t, name).get("spec")
		pod := spec.get("template", "spec")
		volumes := pod.get("volumes").pick("name")
		if spec.has("volumeClaimTemplates") {
			volumes = append(volumes, spec.get("volumeClaimTemplates").pick("metadata", "name")...)
		}
		mounts := pod.get("containers").only().get("volumeMounts").pick("name")
		slices.Sort(volumes)
		slices.Sort(mounts)
		if !slices.Equal(volumes, mounts) {
			t.Errorf("%s has the volumes %v and mounts %v", name, volumes, mounts)
		}
		for _, v := range pod.get("volumes").list() {
			if v.has("secret") {
				manifest(t, "Secret "+v.get("secret", "secretName").text())
			} else {
				manifest(t, "PersistentVolumeClaim "+v.get("persistentVolumeClaim", "claimName").text())
			}
		}
	}
}

// Probes ask a port that there is, for a page that there is.
func TestProbes(t *testing.T) {
	c := primariesPod(t).get("containers").only()
	for name, path := range map[string]string{"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"} {
		get := c.get(name, "httpGet")
		if got := get.get("path").text(); got != path {
			t.Errorf("%s asks for %s, want %s", name, got, path)
		}
		if port := get.get("port").text(); !slices.Contains(c.get("ports").pick("name"), port) {
			t.Errorf("%s asks port %s, which the container does not have", name, port)
		}
	}
}

// The group can form: all are started at once, found by name before they are
// ready, and told the same of each other.
func TestPrimariesFindEachOther(t *testing.T) {
	set := manifest(t, "StatefulSet schedd")
	service := set.get("spec", "serviceName").text()
	headless := manifest(t, "Service "+service).get("spec")
	if headless.get("clusterIP").text() != "None" || headless.get("publishNotReadyAddresses").text() != "true" {
		t.Errorf("Service %s has to be headless and to publish who is not ready", service)
	}
	if got := set.get("spec", "podManagementPolicy").text(); got != "Parallel" {
		t.Errorf("podManagementPolicy is %s: the first would wait for itself", got)
	}
	var join []string
	for i := range 3 {
		join = append(join, fmt.Sprintf("schedd-%d.%s:7420", i, service))
	}
	args := primariesPod(t).get("containers").only().get("args").texts()
	for _, want := range []string{
		"--node-id=$(POD_NAME)", "--cluster-advertise=$(POD_NAME)." + service + ":7420",
		"--bootstrap-expect=" + set.get("spec", "replicas").text(), "--join=" + strings.Join(join, ","),
	} {
		if !slices.Contains(args, want) {
			t.Errorf("the primaries are not given %s", want)
		}
	}
}

// Whoever reaches the API can run programs, so it is not for everybody.
func TestLoadBalancerIsNotForAll(t *testing.T) {
	s := manifest(t, "Service schedd").get("spec")
	for _, r := range s.get("loadBalancerSourceRanges").texts() {
		if r == "0.0.0.0/0" || r == "::/0" {
			t.Errorf("the load balancer is open to %s", r)
		}
	}
	for _, port := range s.get("ports").pick("port") {
		if port != "7421" {
			t.Errorf("port %s is behind the load balancer, which is for the API alone", port)
		}
	}
}
