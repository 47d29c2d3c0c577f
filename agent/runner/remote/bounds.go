package remote

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/schedd/schedd/agent/runner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// What whoever asks may have a runner keep. It keeps names in memory and on its own
// disk; the size of a task and the number of attempts are bounded for a guest, who has
// no other way to use what is root's.
const (
	// maxID bounds the id of an attempt, in bytes. Those of an agent have 40 at most.
	maxID = 256
	// maxMark bounds each variable by which processes of an attempt are found.
	maxMark = 256
	// maxTask bounds what a guest asks to have started, with script and input. A task
	// comes from a gateway with 1 MiB at most.
	maxTask = 2 << 20
	// maxKept bounds the attempts of a guest that run, or have ended and are not
	// forgotten: twice the most slots that a worker has.
	maxKept = 20_000
)

// checkNames returns why an attempt can't be kept by its names.
func checkNames(id string, env []string) error {
	if len(id) > maxID {
		return fmt.Errorf("the attempt's id has %d bytes, the most is %d", len(id), maxID)
	}
	for _, mark := range runner.Marks(env) {
		if len(mark) > maxMark {
			return fmt.Errorf("the variable %.40q of the attempt has %d bytes, the most is %d", mark, len(mark), maxMark)
		}
	}
	return nil
}

// checkStart returns why an attempt is not started, whatever is in it. env is its
// environment.
func (s *service) checkStart(m *runnerv1.StartRequest, env []string) error {
	if err := checkNames(m.GetId(), env); err != nil {
		return err
	}
	if !s.guest {
		return nil
	}
	if size := proto.Size(m); size > maxTask {
		return fmt.Errorf("the task has %d bytes, and the runner of an agent of another user takes at most %d", size, maxTask)
	}
	return nil
}

// checkStrays returns why processes are not looked for. Whoever is found by less than
// the run, the attempt and the worker may be of another worker on this host.
func checkStrays(m *runnerv1.EndStraysRequest) error {
	env := readEnv(m.GetEnv())
	if err := checkNames(m.GetId(), env); err != nil {
		return err
	}
	const all = 3
	if n := len(runner.Marks(env)); n > 0 && n < all {
		return fmt.Errorf("of the variables that tell whose a process is only %d are given: SCHEDD_RUN_ID, SCHEDD_ATTEMPT and SCHEDD_WORKER are needed", n)
	}
	return nil
}
