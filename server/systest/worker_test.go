package systest

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing/synctest"

	"github.com/schedd/schedd/agent"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// worker is a host with an agent, over all the lives of the agent.
type worker struct {
	w     *world
	name  string
	dir   string // of its data; another one after each crash
	link  *link
	host  *fakerunner.Fake
	files *fileDisk // that of the agent
	boot  int       // how often the host was booted again
	clock wallClock // by which it tells of its processes
	epoch uint64    // the greatest of its sessions that was seen by checkHealed

	config agent.Config
	older  bool // its runner is of an older version
	lives  int
	life   *life // nil: no agent
	stop   context.CancelFunc
	wg     sync.WaitGroup
	err    error // of the last life; when wg is done
}

// startWorker adds a host and starts its agent.
func (w *world) startWorker(name string, labels map[string]string, slots int) *worker {
	w.Helper()
	k := w.newWorker(name, labels, slots)
	k.start()
	return k
}

// startDirectWorker adds a host whose agent dials nobody, starts it, and has the
// primaries dial it.
func (w *world) startDirectWorker(name string, labels map[string]string, slots int) *worker {
	w.Helper()
	k := w.newWorker(name, labels, slots)
	k.config.Server, k.config.DirectListen, k.config.Insecure = "", name+":"+directPort, true
	k.start()
	must[*schedv1.AddDirectWorkerResponse](w)(w.primary.workers.AddDirectWorker(w.Context(), &schedv1.AddDirectWorkerRequest{Address: k.config.DirectListen}))
	return k
}

func (w *world) newWorker(name string, labels map[string]string, slots int) *worker {
	k := &worker{w: w, name: name, dir: filepath.Join(w.dir, "worker-"+name), link: w.net.newLink(name), files: newFileDisk(), older: w.older}
	k.host = w.newHost(name)
	k.config = agent.DefaultConfig()
	k.config.Name, k.config.Labels, k.config.Slots = name, labels, slots
	w.workers = append(w.workers, k)
	return k
}

// newHost returns a machine without processes.
func (w *world) newHost(name string) *fakerunner.Fake {
	host := fakerunner.New(w.scripted(name))
	w.hosts = append(w.hosts, host)
	return host
}

// start starts the agent in its data directory.
func (k *worker) start() {
	k.w.Helper()
	if k.life != nil {
		k.w.Fatalf("the agent of %s runs already", k.name)
	}
	ctx, stop := context.WithCancel(k.w.Context())
	k.life, k.stop = newLife(k.host, &k.clock, k.w.held, k.older), stop
	k.w.net.troubles.ends("down", k.name, "")
	k.lives++
	c := k.config
	c.DataDir = k.dir
	seams := agent.Seams{
		Log: k.w.log.With("on", fmt.Sprintf("%s.%d", k.name, k.lives)), Runner: k.life, Dialer: k.link.dial, BootID: fmt.Sprint("boot-", 1+k.boot), Fsync: k.files.fsync, WriteAt: k.files.writeAt, WriteOut: k.files.writeOut,
		Listen: func(context.Context, string) (net.Listener, error) {
			return k.w.net.listen(port{k.name, directPort}), nil
		},
	}
	k.wg.Go(func() { k.err = agent.Run(ctx, c, seams) })
}

// suspend has the host stand still, with all that runs there: nothing comes in or goes out.
// The agent's timers go on, as no bubble can halt some alone.
func (k *worker) suspend() {
	k.w.net.halt(k.name)
	k.host.Halt()
}

// resume has the host go on.
func (k *worker) resume() {
	k.w.net.resume(k.name)
	k.host.GoOn()
}

// end stops the agent gracefully. A disk that hangs answers then, and a host that is
// suspended is not.
func (k *worker) end() {
	k.w.Helper()
	k.resume()
	k.files.free()
	k.w.net.troubles.begins("down", k.name, "") // it says good-bye before all is done
	k.stop()
	k.wg.Wait()
	if k.err != nil {
		k.w.Errorf("the agent of %s ended with %v", k.name, k.err)
	}
	close(k.life.ended)
	k.life.views.Wait()
	k.life = nil
}

// crash ends the agent as SIGKILL does, at this very instant. Its processes live
// on. What is on its disk is what the next life finds; what the dead one still
// does is done to a copy that nobody looks at.
func (k *worker) crash() {
	k.w.Helper()
	k.resume()
	k.w.net.troubles.begins("down", k.name, "")
	close(k.life.dead)
	k.link.cut()
	k.w.net.vanish(k.name)
	synctest.Wait()
	k.image()
	k.files.free()
	close(k.life.buried)
	k.stop()
	k.wg.Wait()
	k.life = nil
	k.link.mend()
}

// powerOff ends all on the host as a loss of power does. What its disk had not taken for
// good is gone, or torn.
func (k *worker) powerOff(dice *rand.Rand) {
	k.w.Helper()
	if k.life != nil {
		k.crash()
	}
	for id := range k.host.Known() {
		k.w.unplugged[id] = k.w.safe[id] // what its worker tells afterwards may not be what was printed
	}
	k.host.PowerOff()
	k.w.lose(dice, k.files.synced(), k.dir)
	k.boot++
}

// shutDown stops the runner, and all that it runs and the agent with it, and has another
// one in its place, as an upgrade of the runner does.
func (k *worker) shutDown() {
	k.w.Helper()
	k.resume()
	k.files.free()
	k.w.net.troubles.begins("down", k.name, "")
	k.host.Stop()
	k.wg.Wait()
	if k.err != nil {
		k.w.Errorf("the agent of %s ended with %v, when its runner was stopped", k.name, k.err)
	}
	k.stop()
	close(k.life.ended)
	k.life.views.Wait()
	k.life = nil
	k.host.Close()
	k.host, k.older = k.w.newHost(k.name), false
}

// image moves on to a copy of the data directory. Logs are linked, not copied:
// the processes that write them live on.
func (k *worker) image() {
	k.w.Helper()
	next := fmt.Sprintf("%s/worker-%s-%d", k.w.dir, k.name, k.lives)
	err := filepath.WalkDir(k.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(next, strings.TrimPrefix(name, k.dir))
		switch {
		case d.IsDir():
			return os.MkdirAll(to, 0o711)
		case strings.HasSuffix(name, ".log"):
			return os.Link(name, to)
		}
		return k.copyFile(name, to)
	})
	if err != nil {
		k.w.Fatalf("copying the disk of %s: %v", k.name, err)
	}
	k.dir = next
}

// copyFile copies a file of the agent, with what is known of what was synced.
func (k *worker) copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		return err
	}
	was, err := os.Stat(from)
	if err != nil {
		return err
	}
	is, err := os.Stat(to)
	if err != nil {
		return err
	}
	k.files.copied(was, is)
	return nil
}

// clone adds a host with a copy of the disk, key and all. The agent must be down. From then
// on both are one worker to the primaries, and what no promise covers is excused: one of them
// connects before the leader has heard what the other one has started, and starts it, too.
func (k *worker) clone(name string) *worker {
	k.w.Helper()
	k.w.twinned[k.name], k.w.copies[name] = true, k.name
	c := k.w.newWorker(name, nil, 0)
	c.config, c.older = k.config, k.older
	if err := os.CopyFS(c.dir, os.DirFS(k.dir)); err != nil {
		k.w.Fatalf("cloning the disk of %s: %v", k.name, err)
	}
	return c
}

// spooled returns the names of what is in the spool.
func (k *worker) spooled() []string {
	names, _ := filepath.Glob(filepath.Join(k.dir, "spool", "*"))
	return names
}

// close ends everything on the host, for the end of the world.
func (k *worker) close() {
	if k.life != nil {
		close(k.life.dead)
		close(k.life.buried)
		k.files.free()
		k.link.cut()
		k.w.net.vanish(k.name)
		k.stop()
		k.wg.Wait()
	}
	k.host.Close()
}
