package lead

import "github.com/schedd/schedd/raftstore/state"

// command is a command to propose, and what to do with the answer.
type command struct {
	state.Command
	done   func(state.Result) // may be nil
	failed func(error)        // told why it is not known what became of it, or that nothing did; may be nil
}

// bare returns the commands without what to do with the answers.
func bare(cmds []command) []state.Command {
	batch := make([]state.Command, len(cmds))
	for i := range cmds {
		batch[i] = cmds[i].Command
	}
	return batch
}

// fail tells those who wait for the answers to commands that there are none.
func fail(cmds []command, err error) {
	for i := range cmds {
		if f := cmds[i].failed; f != nil {
			f(err)
		}
	}
}

// maxEmptied bounds the room that is kept to be filled again.
const maxEmptied = 4096

// emptied returns the room of a list for another one. Each step has about as much to do as
// the one before, and lists that grow from nothing are a tenth of the garbage of a busy
// primary.
func emptied[T any](list []T) []T {
	if cap(list) > maxEmptied {
		return nil
	}
	clear(list)
	return list[:0]
}
