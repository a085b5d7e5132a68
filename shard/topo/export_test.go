package topo

import (
	"context"
	"testing"
)

// LockFile takes the lock of a File, as another publisher does.
func LockFile(t testing.TB, path string) (unlock func()) {
	unlock, err := lockFile(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	return unlock
}

// SetMost bounds the length of the file: one of 64 MiB takes a while.
func (f *File) SetMost(bytes int) { f.most = bytes }
