package redislease_test

import (
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/redislease"
)

// The tests on real servers are in internal/integration/lease.

// noServer is a client that is never asked.
type noServer struct{ rueidis.Client }

func TestNewNamesWhatIsWrong(t *testing.T) {
	for want, o := range map[string]redislease.Options{
		"redislease: Options.TTL is -1s, want 0 (meaning 10s) or 100ms to 24h0m0s":     {TTL: -time.Second},
		"redislease: Options.TTL is 99ms, want 0 (meaning 10s) or 100ms to 24h0m0s":    {TTL: 99 * time.Millisecond},
		"redislease: Options.TTL is 24h0m1s, want 0 (meaning 10s) or 100ms to 24h0m0s": {TTL: 24*time.Hour + time.Second},
		`redislease: Options.Prefix is "app:{1}:", want a text without braces`:         {Prefix: "app:{1}:"},
	} {
		_, err := redislease.New(noServer{}, o)
		require.EqualError(t, err, want)
	}
	_, err := redislease.New(nil, redislease.Options{})
	require.EqualError(t, err, "redislease: client is nil, want a rueidis.Client")
	_, err = redislease.New(noServer{}, redislease.Options{})
	require.NoError(t, err)
}

func TestPutRefusesNoTimeToLive(t *testing.T) {
	lease, err := redislease.New(noServer{}, redislease.Options{})
	require.NoError(t, err)
	err = lease.Put(t.Context(), "key", 1, nil, 0)
	require.EqualError(t, err, "redislease: put: ttl is 0s, want 1ms or more")
}
