package journal

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
)

// keepDamaged bounds the files kept for people to look at after damage.
const keepDamaged = 16

// Open opens the journal at path, whose directory must exist, and makes it when
// there is none. It returns the attempts not yet acknowledged, in the order of
// their fences.
//
// Damage is never fatal. It is logged with what was lost and repaired; the bytes
// cut off, or the whole file when a record stands behind the damage, are kept in
// path+".damaged-<n>", of which there are at most 16. Fatal are an error of
// the disk and a file of a newer version ([ErrVersion]), which is not touched.
func Open(path string, log *slog.Logger) (*Journal, []Entry, error) {
	return OpenOn(Disk{}, path, log)
}

// OpenOn is Open on a disk of which tests know how long an fsync takes, what is there
// when the power fails, and how much room there is.
func OpenOn(d Disk, path string, log *slog.Logger) (*Journal, []Entry, error) {
	return openOn(realDisk{d}, path, log)
}

func openOn(d disk, path string, log *slog.Logger) (*Journal, []Entry, error) {
	j := &Journal{
		path: path, disk: d, log: log,
		turn: make(chan struct{}, 1), table: newTable(), compactMin: compactMin, step: d.step(),
	}
	if err := removeTemp(d, j.temp()); err != nil {
		return nil, nil, err
	}
	f, err := d.open(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, nil, fmt.Errorf("open journal %q: %w", path, err)
	}
	j.file = f
	if err := j.load(); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open journal %q: %w", path, err), j.file.Close())
	}
	return j, j.table.list(), nil
}

// load reads the file, repairs it where that is needed and fills the table.
func (j *Journal) load() error {
	data, err := io.ReadAll(io.NewSectionReader(j.file, 0, math.MaxInt64))
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	v, whole := decodeHeader(data)
	if whole && v != version {
		return fmt.Errorf("version %d, know %d; install the newer version again: %w", v, version, ErrVersion)
	}
	recs, gaps := scan(data)
	if !whole && len(recs) == 0 {
		return j.begin(data)
	}
	for i := range recs {
		j.table.apply(&recs[i].rec)
		j.table.high = max(j.table.high, recs[i].high)
	}
	end, lost := judge(recs, gaps)
	j.size, j.synced, j.length = end, end, int64(len(data))
	if whole && (len(gaps) == 0 || gaps[0].from >= end) {
		return j.cutTail(data)
	}
	return j.mend(data, gaps, lost)
}

// judge returns where the last whole record ends, and how many of the gaps, the first
// ones, are certainly in bytes that were synced. Of the others nobody can say whether a
// crash tore them or the disk changed them later.
func judge(recs []found, gaps []span) (end int64, lost int) {
	if len(recs) == 0 {
		return headerLen, 0
	}
	last := recs[len(recs)-1]
	for lost < len(gaps) && gaps[lost].from < last.base {
		lost++
	}
	return last.end, lost
}

// begin starts the file anew, setting aside what was in it.
func (j *Journal) begin(data []byte) error {
	if len(data) > 0 {
		// A crash while the file was first made leaves no more than a part of
		// the header. Anything longer once was a journal.
		kept := j.keep(data)
		j.log.Error("journal holds no whole record; starting a new one", "path", j.path, "bytes", len(data), "kept", kept)
	}
	if err := j.file.Truncate(0); err != nil {
		return fmt.Errorf("empty it: %w", err)
	}
	if _, err := j.file.WriteAt(encodeHeader(), 0); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	j.size, j.synced, j.length = headerLen, headerLen, headerLen
	return j.syncDir()
}

// cutTail takes off what a crash left half written, if anything. Room for more it leaves.
func (j *Journal) cutTail(data []byte) error {
	if isRoom(data[j.size:]) {
		// A process that was killed may have left a batch written but not
		// synced. It is reported from now on, so it has to be.
		if err := j.file.Sync(); err != nil {
			return fmt.Errorf("sync: %w", err)
		}
		return j.syncDir()
	}
	kept := j.keep(data[j.size:])
	j.log.Warn("journal ended in a torn write; cut off", "path", j.path, "bytes", int64(len(data))-j.size, "kept", kept)
	if err := j.file.Truncate(j.size); err != nil {
		return fmt.Errorf("cut to %d bytes: %w", j.size, err)
	}
	j.length = j.size
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return j.syncDir()
}

// mend rewrites a file that has gaps before whole records, or lost its header. Of the
// gaps the first lost held synced records: what they accepted is refused. The others may
// be torn, which is no reason to refuse anything; but a record behind them may have been
// synced after all, so it counts.
func (j *Journal) mend(data []byte, gaps []span, lost int) error {
	bytes := int64(0)
	for _, g := range gaps {
		bytes += g.to - g.from
	}
	if lost > 0 {
		j.table.floor = j.table.high
	}
	kept := j.keep(data)
	j.log.Error("journal is damaged; what was whole is kept, unknown attempts up to the fence are refused",
		"path", j.path, "bytes", bytes, "places", len(gaps), "synced_places", lost, "fence", j.table.floor, "kept", kept)
	f, size, err := rewrite(j.disk, j.temp(), j.table.records(), j.table.high)
	if err != nil {
		return err
	}
	return j.replace(f, size)
}

// keep writes data to the first free of the names for damaged bytes, and says
// where; if that fails, why. The repair goes on either way.
func (j *Journal) keep(data []byte) string {
	for n := 1; n <= keepDamaged; n++ {
		name := fmt.Sprintf("%s.damaged-%d", j.path, n)
		f, err := create(j.disk, name, os.O_EXCL, data)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return "not kept: " + err.Error()
		}
		return name
	}
	return fmt.Sprintf("not kept: there are %d already, remove some of %s.damaged-*", keepDamaged, j.path)
}

func (j *Journal) syncDir() error {
	if err := j.disk.syncDir(filepath.Dir(j.path)); err != nil {
		return fmt.Errorf("sync its directory: %w", err)
	}
	return nil
}
