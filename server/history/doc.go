// Package history keeps the runs that have ended, for longer than the replicated
// state does, in an SQLite file on each primary.
//
// The state is what primaries agree on, and in memory; so the leader has it forget
// runs soon after their end (package plan says which). The history is where they
// stay. It decides nothing, takes part in no agreement, and is never on the way of
// one: what ends is put in a queue in memory while it is applied, and a goroutine
// of this package writes it, many in one transaction, with how far the log was.
// It starts no run, and removes no log; whoever does asks [Store.Runs].
//
// # Never in neither
//
// A run that has left the state is in the queue or in the file of each primary:
//
//   - it is handed over in the moment in which it is applied ([raftstore.Archive]),
//     and leaves the queue when its transaction is on disk (synchronous=FULL: what a
//     commit returned for survives a loss of power);
//   - a crash loses the queue, and the log is then applied again, from the latest
//     snapshot on; a snapshot waits until all that it covers is in the file, for half a
//     minute. One that is taken all the same, since the disk is full, say, has what
//     ended and is still in the state, and a primary that starts from it writes that
//     again; what had left the state meanwhile, by a leader whose disk works, it asks
//     of others, as its file tells up to where it is, also while no run ends. Rows are
//     known by the run, so what comes twice changes nothing;
//   - the leader has only that forgotten which is in its own file ([Store.Held]). So
//     what is in nobody's state is in somebody's file, and a leader whose disk is
//     full keeps runs in memory instead, up to a bound that plan names.
//
// Who reads looks at the state first, then here, where the queue is looked at before
// the file: in the direction in which runs move, so that none is missed.
//
// # Gaps
//
// A primary that is given a snapshot by another one, since it is new or was away for
// long, has not seen what ended and was forgotten in between; nor has one whose file
// was damaged and set aside. It knows for which time: that is a [Gap], kept in the
// file, and filled from the other primaries' files over the cluster port. The end of
// a run is in its record by the leaders' clock, which never goes back in the state, so
// a gap means the same to all. When all of the group have given what they have, and
// some time is still in doubt, it is lost, and no longer asked for. That stays told
// ([Store.Lost], [state.ErrLost]) until what ended then would be too old to be kept.
//
// # On disk
//
//	history.db, -wal, -shm    SQLite; a run is a row, and its record is one blob in
//	                          the form that snapshots have (raftstore.EncodeRun)
//	history.db.<time>.damaged set aside: it could not be read
//
// The other columns are there to be found by: the serial number, which orders runs by
// birth and pages of lists too, and what lists are filtered by.
package history
