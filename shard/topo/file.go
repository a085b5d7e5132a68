package topo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/internal/feed"
)

// maxFile is how long a file may be: maps of a million shards, and not whatever else the
// path may lead to.
const maxFile = 64 << 20

// FileOptions are the knobs of a [File]. The zero value of each field is its default.
type FileOptions struct {
	// Poll is the mean pause between two readings of the file by one watcher. At least
	// 1 ms. 0 means 1 s.
	Poll time.Duration
}

// A File is a [Store] in a file, which holds one map as [shard.Map.MarshalJSON] writes it.
// It must be created by [NewFile].
//
// Publish writes a new file beside it, the path and ".tmp", and renames it, with an
// fsync of both the file and its folder: after a kill or a power cut the file is the old
// map or the new one, and whole. Publishers of all processes take turns by a lock
// (flock) on a third file, the path and ".lock", which stays and is empty: to remove it
// while somebody may publish lets two in at once. A link is followed, and its target's
// lock is the lock of all names. Where the system is not a Unix there is no such lock:
// there only one File may publish. Keep the file off network file systems.
//
// Watch reads the whole file at every poll, which costs 0.1 ms for a thousand shards and
// notices every change, also two within one tick of the clock of the file system. It uses
// no inotify. An editor that writes in place may be caught half-way: that is an error, and
// the next poll finds the rest.
//
// The system has no way to cancel the reading of a file, so that contexts end waits and
// not a disk that hangs. A File is safe for concurrent use by multiple goroutines.
type File struct {
	path string
	poll time.Duration
	most int           // bytes of the file
	turn chan struct{} // taken by the publisher of this File
}

var _ Store = (*File)(nil)

// NewFile returns a File at path, which need not exist; its folder must, at the latest
// when a map is published. It touches no file. Returns an error if path is empty or an
// option is out of its range.
func NewFile(path string, o FileOptions) (*File, error) {
	if path == "" {
		return nil, errors.New("topo: path is empty, expected that of a file")
	}
	poll, err := pollOf("FileOptions", o.Poll, time.Millisecond, time.Second)
	if err != nil {
		return nil, err
	}
	return &File{path: path, poll: poll, most: maxFile, turn: make(chan struct{}, 1)}, nil
}

// Path returns the path that NewFile was given.
func (f *File) Path() string { return f.path }

// Load reads the map. Returns an error that wraps [ErrNoMap] if there is no file, and one
// that wraps [shard.ErrBadMap] and names the file if that is no map.
func (f *File) Load(ctx context.Context) (*shard.Map, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	text, err := f.read()
	switch {
	case err != nil:
		return nil, fmt.Errorf("topo: %w", err)
	case text == nil:
		return nil, fmt.Errorf("%w in file %s", ErrNoMap, f.path)
	}
	return f.decode(text)
}

// Watch is that of [shard.Source]: it yields the map in the file, and every newer one
// within five quarters of Poll. It yields an error for a file that is no map, is gone, or
// went back to an older map, once, and goes on. A file that cannot be read is an error at
// each try, after pauses that grow from 0.1 s to 5 s.
func (f *File) Watch(ctx context.Context) iter.Seq2[*shard.Map, error] {
	return func(yield func(*shard.Map, error) bool) {
		var heard feed.Feed
		w := watcher{poll: f.poll, ask: func(context.Context) (*shard.Map, bool, error) {
			text, err := f.read()
			if err != nil {
				return nil, false, fmt.Errorf("topo: %w", err)
			}
			m, err := heard.Hear(text, f.decode)
			if err != nil && !errors.Is(err, shard.ErrBadMap) {
				err = fmt.Errorf("%w in file %s", err, f.path)
			}
			return m, true, err
		}}
		w.run(ctx, yield)
	}
}

// Publish is that of [Store]. It overwrites a file that is no map, but not a document of
// a later version whose epoch is not lower ([shard.ErrStaleMap]). It waits for its turn
// until ctx ends, and then takes about as long as two fsyncs. A new file can be read by
// everybody, as far as the umask allows; an old one keeps its permissions, not its owner.
func (f *File) Publish(ctx context.Context, m *shard.Map) (err error) {
	text, err := feed.Encode(m)
	if err != nil {
		return fmt.Errorf("topo: publish in file %s: %w", f.path, err)
	}
	if len(text) >= f.most {
		return fmt.Errorf("topo: publish in file %s: %w: %d bytes, expected below %d", f.path, shard.ErrBadMap, len(text), f.most)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// What is there already, or is newer, needs neither lock nor permission.
	if done, err := f.settled(m); err != nil {
		return fmt.Errorf("topo: publish in file %s: %w", f.path, err)
	} else if done {
		return nil
	}
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// A link is followed: all names of a file have one lock, and it stays a link.
	path := f.path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	unlock, err := lockFile(ctx, path+".lock")
	if err != nil {
		return fmt.Errorf("topo: publish in file %s: %w", f.path, err)
	}
	defer unlock()
	if err := f.publish(m, path, append(text, '\n')); err != nil {
		return fmt.Errorf("topo: publish in file %s: %w", f.path, err)
	}
	return nil
}

// publish runs under the lock.
func (f *File) publish(m *shard.Map, path string, text []byte) error {
	if done, err := f.settled(m); done || err != nil {
		return err
	}
	mode := fs.FileMode(0) // as the umask says
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	// The name is always the same: what a killed publisher left is replaced.
	temp := path + ".tmp"
	if err := writeSynced(temp, text, mode); err != nil {
		_ = os.Remove(temp)
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// settled reports whether the file has m, or returns why m must not take its place.
func (f *File) settled(m *shard.Map) (bool, error) {
	held, err := f.read()
	if held == nil || err != nil {
		return false, err
	}
	old, err := feed.Decode(held)
	if err != nil {
		return false, feed.Ahead(held, m)
	}
	newer, err := m.Supersedes(old)
	return !newer, err
}

func writeSynced(path string, text []byte, mode fs.FileMode) error {
	_ = os.Remove(path) // it may be a link to elsewhere
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if mode != 0 {
		err = file.Chmod(mode) // the umask would take from it
	}
	if err == nil {
		_, err = file.Write(text)
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// read returns the content of the file, and nil if there is none.
func (f *File) read() ([]byte, error) {
	// The question comes first: to open a pipe would wait for a writer.
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is %v, expected a regular file", f.path, info.Mode().Type())
	}
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return io.ReadAll(io.LimitReader(file, int64(f.most)+1))
}

func (f *File) decode(text []byte) (*shard.Map, error) {
	if len(text) > f.most {
		return nil, fmt.Errorf("topo: file %s: %w: longer than %d bytes", f.path, shard.ErrBadMap, f.most)
	}
	m, err := feed.Decode(text)
	if err != nil {
		return nil, fmt.Errorf("topo: file %s: %w", f.path, err)
	}
	return m, nil
}
