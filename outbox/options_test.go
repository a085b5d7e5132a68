package outbox_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

func TestNewNamesTheOptionThatIsWrong(t *testing.T) {
	for want, o := range map[string]outbox.Options{
		"Options.Batch is -1, want 0 (meaning 100) or more":                  {Batch: -1},
		"Options.BatchBytes is -1, want 0 (meaning 1048576) or more":         {BatchBytes: -1},
		"Options.PollMin is -1ns, want 0 (meaning 10ms) or more":             {PollMin: -1},
		"Options.PollMax is -1ns, want 0 (meaning 1s) or more":               {PollMax: -1},
		"Options.PollMin is 10ms, want at most PollMax, which is 1ms":        {PollMax: time.Millisecond},
		"Options.Lease is -1ns, want 0 (meaning 10s) or more":                {Lease: -1},
		"Options.Lease is 9ms, want at least 10ms":                           {Lease: 9 * time.Millisecond},
		"Options.RetryBase is -1s, want 0 (meaning 1s) or more":              {RetryBase: -time.Second},
		"Options.RetryMax is -1ns, want 0 (meaning 10m0s) or more":           {RetryMax: -1},
		"Options.RetryBase is 1s, want at most RetryMax, which is 1ms":       {RetryMax: time.Millisecond},
		"Options.RetryBase is 2s, want at most RetryMax, which is 1.999999s": {RetryBase: 2 * time.Second, RetryMax: 1999999 * time.Microsecond},
		"Options.PollMin is 3s, want at most PollMax, which is 2s":           {PollMin: 3 * time.Second, PollMax: 2 * time.Second},
	} {
		box, err := outbox.New(sqlite.Dialect{}, o)
		require.ErrorIs(t, err, outbox.ErrInvalid, want)
		require.ErrorContains(t, err, want)
		require.Nil(t, box)
	}
	_, err := outbox.New(nil, outbox.Options{})
	require.ErrorIs(t, err, outbox.ErrInvalid)
	require.ErrorContains(t, err, "postgres.Dialect{}")

	// A minimum above the default maximum raises it.
	for _, o := range []outbox.Options{{}, {PollMin: time.Minute}, {RetryBase: time.Hour}, {MaxAttempts: -1}} {
		_, err := outbox.New(sqlite.Dialect{}, o)
		require.NoError(t, err)
	}
}

func TestRunAndDrainRefuseNil(t *testing.T) {
	box := newOutbox(t, outbox.Options{})
	require.ErrorIs(t, box.Run(t.Context(), nil, nil), outbox.ErrInvalid)
	_, err := box.Drain(t.Context(), nil, nil)
	require.ErrorIs(t, err, outbox.ErrInvalid)
	require.ErrorIs(t, box.Migrate(t.Context(), nil), outbox.ErrInvalid)
	require.ErrorIs(t, box.Run(t.Context(), new(sql.DB), outbox.PublisherFunc(nil)), outbox.ErrInvalid)
	require.ErrorIs(t, box.Add(t.Context(), nil, outbox.Message{Topic: "t"}), outbox.ErrInvalid)
	_, err = box.Replay(t.Context(), nil, 1)
	require.ErrorIs(t, err, outbox.ErrInvalid)
	_, err = box.Purge(t.Context(), nil, time.Now())
	require.ErrorIs(t, err, outbox.ErrInvalid)
	_, err = box.Stats(t.Context(), nil)
	require.ErrorIs(t, err, outbox.ErrInvalid)
	require.ErrorIs(t, box.Pause(t.Context(), nil, "t"), outbox.ErrInvalid)
	for _, err := range box.Dead(t.Context(), nil) {
		require.ErrorIs(t, err, outbox.ErrInvalid)
	}
}
