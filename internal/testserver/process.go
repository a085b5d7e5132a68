//go:build unix

package testserver

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Process is one running server process. Its methods are safe for concurrent use.
type Process struct {
	t       testing.TB
	process *os.Process
	logFile string
	stop    syscall.Signal
	ended   chan struct{} // closed when it has ended
}

// PID is the process's number, which is also that of its process group.
func (p *Process) PID() int { return p.process.Pid }

// Stop asks the server to end, kills it after five seconds, and waits for its end.
func (p *Process) Stop() {
	_ = p.process.Signal(p.stop) // an error once it has ended, when the number may be another's
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		p.Kill()
	}
}

// Kill is kill -9 of the server and its children, a crash. It waits for the end of
// the server.
func (p *Process) Kill() {
	for _, pid := range p.freeze() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-p.ended
}

// Pause freezes the server and its children: it answers nothing and keeps its
// connections open.
func (p *Process) Pause() {
	for _, pid := range p.freeze() {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
		if pid > 0 { // a child, which would stay frozen when its parent is gone
			tell(p.t, "server %d %d", pid, syscall.SIGKILL)
		}
	}
}

// Resume ends Pause.
func (p *Process) Resume() {
	for _, pid := range p.freeze() {
		_ = syscall.Kill(pid, syscall.SIGCONT)
		if pid > 0 {
			tell(p.t, "ended %d", pid)
		}
	}
}

// freeze stops the server, so that it starts no more children, and returns what to
// signal to reach it and all of them: their numbers, and last, negative, that of its
// group. It returns nothing once the server has ended.
//
// PostgreSQL gives each child a session of its own, where a signal for the group
// does not arrive. Without a /proc such children are not found.
func (p *Process) freeze() []int {
	if p.process.Signal(syscall.SIGSTOP) != nil {
		return nil
	}
	var pids []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is sound
	for _, path := range stats {
		text, _ := os.ReadFile(path)                                              // nothing, if it has ended meanwhile
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // after the name: state, parent
		if len(fields) > 1 && fields[1] == strconv.Itoa(p.PID()) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return append(pids, -p.PID())
}

// spec says how to run a server.
type spec struct {
	bin  string
	args []string
	dir  string              // for its working directory and its log
	as   *syscall.Credential // nil means ourselves
	stop syscall.Signal      // what asks it to end

	ready func() error // nil once it answers
}

var errEnded = errors.New("the server ended before it was ready")

// readyWithin is how long a server may take to start on a machine that is busy with
// other things.
const readyWithin = time.Minute

// launch starts a server and waits until it is ready. It ends the server with the
// test. On an error nothing is left running; the error contains the log.
func launch(t testing.TB, s spec) (*Process, error) {
	t.Helper()
	logFile := filepath.Join(s.dir, filepath.Base(s.bin)+".log")
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(s.bin, s.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.as}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{t: t, process: cmd.Process, logFile: logFile, stop: s.stop, ended: make(chan struct{})}
	tell(t, "server %d %d", p.PID(), s.stop)
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.Resume() // a stopped process does not hear that it should end
		p.Stop()
		tell(t, "ended %d", p.PID())
		if t.Failed() {
			t.Log(p.tail())
		}
	})
	if err := p.await(s.ready); err != nil {
		p.Kill()
		return nil, fmt.Errorf("%s: %w\n%s", s.bin, err, p.tail())
	}
	return p, nil
}

// await polls until ready is.
func (p *Process) await(ready func() error) error {
	timeout := time.After(readyWithin)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return errEnded
		case <-timeout:
			return fmt.Errorf("not ready after %v: %w", readyWithin, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// tail is the end of the log.
func (p *Process) tail() string {
	b, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("--- the end of %s:\n%s", p.logFile, b[max(0, len(b)-4096):])
}

// launchOnFreePort calls start with a free port until the server starts on it:
// between our look at a port and the server's another process may take it.
func launchOnFreePort(t testing.TB, start func(port int) (*Process, error)) (*Process, int) {
	t.Helper()
	var err error
	for range 3 {
		port := freePorts(t, 1)[0]
		var p *Process
		if p, err = start(port); err == nil {
			return p, port
		}
	}
	t.Fatalf("start a server: %v", err)
	return nil, 0
}

// relaunch calls start until the server starts. After a crash a server may find
// children of its predecessor that have yet to notice, and refuse.
func relaunch(t testing.TB, start func() (*Process, error)) *Process {
	t.Helper()
	for tries := 1; ; tries++ {
		p, err := start()
		if err == nil {
			return p
		}
		if !errors.Is(err, errEnded) || tries == 50 {
			t.Fatalf("start a server again: %v", err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// freePorts returns distinct ports of the loopback interface that were free.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // only after all are chosen
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// serverUser is the user that a server runs as: ourselves, unless we are root, as
// which some servers refuse to run.
func serverUser(t testing.TB, names ...string) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range append(names, "nobody") {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	t.Fatalf("we are root, and there is none of the users %v to run a server as", names)
	return nil
}

// run runs a program to its end and returns what it wrote. It does not outlive us
// either: an initdb would go on to fill the folder that the reaper removes.
func run(t testing.TB, as *syscall.Credential, dir, bin string, args ...string) string {
	t.Helper()
	var out strings.Builder
	cmd := exec.Command(bin, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: as}
	err := cmd.Start()
	if err == nil {
		tell(t, "server %d %d", cmd.Process.Pid, syscall.SIGKILL)
		err = cmd.Wait()
		tell(t, "ended %d", cmd.Process.Pid)
	}
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", bin, args, err, out.String())
	}
	return out.String()
}
