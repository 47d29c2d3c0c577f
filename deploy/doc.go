// Package deploy holds no code. It is how schedd is put on machines: systemd units,
// images, Kubernetes manifests and configurations of load balancers, and the tests
// that hold them to each other and to the programs.
//
// What only other programs can tell (haproxy, nginx, systemd-analyze and so on) the
// script check asks them.
package deploy
