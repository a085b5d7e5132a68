//go:build unix

package testserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// requireEnv turns the skips into failures.
const requireEnv = "EVENKEEL_REQUIRE"

// missing skips the test for the lack of a program, or fails it where nothing may
// be missing.
func missing(t testing.TB, what, install string) {
	t.Helper()
	if os.Getenv(requireEnv) != "" {
		t.Fatalf("%s is missing, and %s is set: %s", what, requireEnv, install)
	}
	t.Skipf("%s is missing: %s", what, install)
}

// program finds a program in PATH or in the folders that match the patterns, the
// newest version first.
func program(name string, patterns ...string) (path string, ok bool) {
	candidates := []string{name}
	for _, pattern := range patterns {
		found, _ := filepath.Glob(filepath.Join(pattern, name)) // the patterns are ours, and sound
		slices.Reverse(found)
		candidates = append(candidates, found...)
	}
	for _, c := range candidates {
		if p, err := exec.LookPath(c); err == nil { // looks in PATH, or that a path is executable
			return p, true
		}
	}
	return "", false
}
