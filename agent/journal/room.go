package journal

import "bytes"

// roomStep is how many zeros are put behind the last record at a time, in bytes: there is
// room in them for the records of some hundred attempts.
const roomStep = 64 << 10

// put writes buf behind the last record, and new room behind that when there is too little.
// In a file that does not grow an fsync has the record to take and nothing else; in one that
// does, how long it is, too, which is another write that is waited for. On a disk that is full
// there is no room to spare: there the file grows with each record.
func (j *Journal) put(buf []byte) error {
	if j.size+int64(len(buf)) > j.length && j.step > 0 {
		err := j.writeAll(append(buf, make([]byte, j.step)...))
		if err == nil || j.failed != nil {
			return err
		}
		j.step = 0 // until the file is made anew
	}
	return j.writeAll(buf)
}

// isRoom reports whether what is behind the last record is room, and not what is left of
// another one.
func isRoom(tail []byte) bool {
	return len(tail) <= roomStep && len(bytes.Trim(tail, "\x00")) == 0
}
