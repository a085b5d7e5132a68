//go:build unix

package testserver

import (
	"os"
	"os/exec"
	"path/filepath"
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
	if p, err := exec.LookPath(name); err == nil {
		return p, true
	}
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(pattern, name))
		if err == nil && len(found) > 0 {
			return found[len(found)-1], true
		}
	}
	return "", false
}
