// Package runlog keeps the output of attempts on one primary's disk: appended
// by offset, durable on request, read by tail.
//
// A log is bytes, nothing more: no lines, no encoding, no timestamps. The
// offset of a byte is its position in what the attempt printed, so that any
// number of senders may send the same bytes any number of times ([Store.Append]).
// The package never talks to workers or other primaries, never decides what is
// kept ([Store.Remove] is the caller's retention), sets no limit to a log's
// length, starts no goroutine and reads no clock. One process owns a directory;
// the lock on the data directory is the caller's.
//
// # On disk
//
// One file per attempt, in one of 256 shard directories:
//
//	3f/<run>.<attempt>.<fence>.log    frame frame frame … [end]
//	3f/<run>.<attempt>.<fence>.suspect, .copy    only after a failed fsync, see below
//
//	frame: crc32c u32 | kind u8, length u24 | offset u64 | length bytes, ≤ 64 KiB
//
// (little endian). The checksum covers the rest of the frame, and starts from a
// hash of the format and the key, so a frame is good only in its own log and at
// its own offset. Positions in the file differ from offsets in the log; a sparse
// index in memory (16 bytes for 64 KiB) leads from one to the other.
//
// Raw bytes would be simpler, but after a power loss the size of a raw file
// says nothing: file systems may store the size before the data, and the rest
// reads as zeros. With frames the file vouches for itself. When a log is first
// touched it is read through, and the good frames from its beginning are what
// is known of it. What follows a bad frame was never acknowledged as durable;
// the next Append cuts it off, and the sender sends it again. Reading never
// changes a file. A later format takes another suffix.
//
// # Durable
//
// [Store.Sync] acknowledges an offset only after fsync of the file and of the
// directories that name it. What it acknowledged in an earlier life of the process is not
// remembered: after a restart Durable is 0 until the first Sync, which costs one
// fsync. A finished log is the exception: its end frame is written only after
// all of it was fsync'ed, so who finds an end frame knows that the log is
// durable, and how long it is.
//
// An fsync that failed may have dropped what it could not write, and the next
// one would succeed with nothing left to write. So the file is not trusted any
// more: Sync returns [ErrUnavailable], and the next Append or Sync copies the
// good frames into a new file, fsyncs that and renames it into place. Nothing
// is acknowledged before that worked; no byte that can still be read is lost.
// An empty .suspect file tells a restarted process to do the same. (That an fd
// opened later reports an earlier write error nobody has seen yet is what Linux
// does since 4.16; it allows few files to be open.)
//
// # Sealed
//
// [Store.Seal] tells where a log ends. The result of an attempt does not wait
// for its log, so the seal may come first, and stays in memory until the log is
// complete and durable: then the end frame keeps it. After a restart a log that
// was sealed and not complete is open-ended again, until whoever knows the
// replicated state tells the length again. The same goes for a log of length 0,
// which never has a file: the last 65,536 or more such seals are remembered. So
// seal before following what has ended; then a follower waits only for bytes
// that are to come, and its context is the limit of that.
package runlog
