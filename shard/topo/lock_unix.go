//go:build unix && !solaris && !aix

package topo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/evenkeel-go/evenkeel/shard/internal/feed"
)

// lockPoll is the mean pause between two tries of a lock that another process has.
const lockPoll = 5 * time.Millisecond

// lockFile takes an exclusive flock on the file at path, which it creates. The system
// gives it back when its owner is killed. The file must never be removed: a lock on a
// removed file would exclude nobody.
//
// It polls, since a thread that waits inside flock cannot be called back.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = file.Close() }, nil
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK):
			_ = file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		case !feed.Sleep(ctx, feed.Jitter(lockPoll)):
			_ = file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		}
	}
}

// syncFolder makes a rename last through a power cut.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
