package outbox_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/outbox"
)

func headerRoundTrip(t *rapid.T) {
	in := rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "header")
	s, err := outbox.EncodeHeader(in)
	require.NoError(t, err)
	out, err := outbox.DecodeHeader(s)
	require.NoError(t, err)
	if len(in) == 0 {
		require.Empty(t, s)
		require.Nil(t, out)
		return
	}
	require.Equal(t, in, out)
}

func TestHeaderRoundTrip(t *testing.T) { rapid.Check(t, headerRoundTrip) }

func FuzzHeaderRoundTrip(f *testing.F) { f.Fuzz(rapid.MakeFuzz(headerRoundTrip)) }

// FuzzDecodeHeader feeds what somebody may have written to the column by hand.
func FuzzDecodeHeader(f *testing.F) {
	for _, s := range []string{"", "{}", `{"a":"b"}`, `{"a":1}`, `[`, `null`, `{"a":"b","a":"c"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := outbox.DecodeHeader(s)
		if err != nil {
			require.Nil(t, h)
			return
		}
		again, err := outbox.EncodeHeader(h)
		require.NoError(t, err)
		h2, err := outbox.DecodeHeader(again)
		require.NoError(t, err)
		require.Equal(t, len(h), len(h2))
	})
}

// FuzzClip: whatever an error says can be stored and is cut to 1 KiB.
func FuzzClip(f *testing.F) {
	f.Add("plain")
	f.Add(strings.Repeat("é", 600) + "\x00\xff")
	f.Add(strings.Repeat("x", 1023) + "é")
	f.Fuzz(func(t *testing.T, s string) {
		got := outbox.Clip(s)
		require.True(t, utf8.ValidString(got))
		require.NotContains(t, got, "\x00")
		require.LessOrEqual(t, len(got), 1024)
		if len(s) <= 1024 && utf8.ValidString(s) && !strings.Contains(s, "\x00") {
			require.Equal(t, s, got)
		}
		if len(s) > 1024 && utf8.ValidString(s) && !strings.Contains(s, "\x00") {
			require.Greater(t, len(got), 1020)
			require.True(t, strings.HasPrefix(s, got))
		}
	})
}
