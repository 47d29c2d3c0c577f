// Package natlab tests the programs where they are to prove themselves: workers
// in private networks behind routers that translate addresses, a load balancer,
// and three primaries that have no route to any worker. All of it is real but the
// wires: processes, network namespaces, iptables, HAProxy and nginx, on one
// machine. It holds tests only, behind the build tag e2e; "make e2e" builds the
// programs and runs them. It needs Linux, root, and the commands ip, iptables,
// haproxy and nginx; where they are missing, its tests are skipped and say why.
//
// Each kind of load balancer has some labs, beside each other, in each of which
// one fault after the other is caused: a primary is killed or stopped, the load
// balancer restarted, a router forgets its flows, a link goes dead. What the tests
// then compare is what the processes of jobs wrote down, the runs, the ledger and
// the logs. They never look inside a program, and touch nothing of the machine's
// own network.
//
// Nothing here sleeps. How fast something was is measured and told; the limits
// that fail a test are twice what is promised, or more, since the machine is
// shared.
package natlab
