//go:build unix

package testserver

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
)

// The reaper is a shell that reads from a pipe whose other end only this process
// holds. When this process ends, however it ends, the pipe closes; the shell then
// ends the servers that are left and removes their folders. It is a session of its
// own, so that a signal for our group does not reach it.
//
// PR_SET_PDEATHSIG would be shorter, but it follows the death of the thread that
// forked, is Linux's own, and removes no folder.
const reaperScript = `
servers= dirs=
while read -r verb a b; do
	case $verb in
	server) servers="$servers $a:$b" ;;
	ended) left=; for s in $servers; do [ "${s%:*}" = "$a" ] || left="$left $s"; done; servers=$left ;;
	dir) dirs="$dirs $a" ;;
	removed) left=; for d in $dirs; do [ "$d" = "$a" ] || left="$left $d"; done; dirs=$left ;;
	esac
done
for s in $servers; do kill -"${s#*:}" "${s%%:*}"; done 2>/dev/null
n=0
for s in $servers; do
	while kill -0 "${s%%:*}" && [ $n -lt 40 ]; do n=$((n+1)); sleep 0.05; done
	kill -KILL -"${s%%:*}"
done 2>/dev/null
for d in $dirs; do rm -rf "$d" || { sleep 0.2; rm -rf "$d"; }; done
`

type reaper struct {
	mu sync.Mutex // a message is one write, and they must not mix
	in io.Writer
}

var startReaper = sync.OnceValues(func() (*reaper, error) {
	cmd := exec.Command("/bin/sh", "-c", reaperScript)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe() // close-on-exec: no server inherits it
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go cmd.Wait()
	return &reaper{in: in}, nil
})

// tell gives the reaper a message.
func tell(t testing.TB, format string, args ...any) {
	t.Helper()
	r, err := startReaper()
	if err != nil {
		t.Fatalf("start the reaper: %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := fmt.Fprintf(r.in, format+"\n", args...); err != nil {
		t.Errorf("tell the reaper: %v", err)
	}
}

// tempDir makes a folder that the server's user can enter, which is not so of
// t.TempDir, with a path short enough for a Unix socket in it (107 bytes). It is
// removed after the test.
func tempDir(t testing.TB, owner *syscall.Credential) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "evenkeel-")
	if err != nil {
		t.Fatal(err)
	}
	tell(t, "dir %s", dir)
	if owner != nil {
		if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the data folder: %v", err)
		}
		tell(t, "removed %s", dir)
	})
	return dir
}
