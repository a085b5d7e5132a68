package gather_test

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard/gather"
)

func key(fill byte) []byte { return slices.Repeat([]byte{fill}, 32) }

func cursorsOf(t require.TestingT, keys ...[]byte) *gather.Cursors {
	c, err := gather.NewCursors(keys...)
	require.NoError(t, err)
	return c
}

// isOf reports that err is exactly one of the two errors of a cursor.
func isOf(t require.TestingT, err, want error) {
	for _, e := range []error{gather.ErrBadCursor, gather.ErrForeignCursor} {
		if e == want {
			require.ErrorIs(t, err, e)
		} else {
			require.NotErrorIs(t, err, e)
		}
	}
}

func TestCursorsOpenWhatTheySealed(t *testing.T) {
	t.Parallel()
	c := cursorsOf(t, key(1))
	rapid.Check(t, func(t *rapid.T) {
		query, position := rapid.String().Draw(t, "query"), rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "position")
		text, err := c.Seal(query, position)
		require.NoError(t, err)
		got, err := c.Open(query, text)
		require.NoError(t, err)
		require.True(t, slices.Equal(position, got))
		require.NotContains(t, text, "=")
		require.Empty(t, strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), "it stands in a URL")

		other := rapid.String().Filter(func(s string) bool { return s != query }).Draw(t, "other")
		_, err = c.Open(other, text)
		isOf(t, err, gather.ErrForeignCursor)
	})
}

// Whatever is changed, left out or added: the cursor is bad, for its own query and for
// others.
func TestCursorsRefuseWhatWasChanged(t *testing.T) {
	t.Parallel()
	c := cursorsOf(t, key(1))
	rapid.Check(t, func(t *rapid.T) {
		text, err := c.Seal("query", rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "position"))
		require.NoError(t, err)
		i := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		letter := string(rapid.SampledFrom([]byte("Ab0-_\n\r=+/ \x00")).Draw(t, "letter"))
		for _, changed := range []string{text[:i] + letter + text[i+1:], text[:i] + text[i+1:], text[:i] + letter + text[i:], text[:i]} {
			if changed == text || changed == "" {
				continue
			}
			for _, query := range []string{"query", "other"} {
				_, err := c.Open(query, changed)
				isOf(t, err, gather.ErrBadCursor)
			}
		}
	})
}

func TestCursorsRefuseAnotherVersion(t *testing.T) {
	t.Parallel()
	c := cursorsOf(t, key(1))
	text, err := c.Seal("query", []byte("position"))
	require.NoError(t, err)
	data, err := base64.RawURLEncoding.DecodeString(text)
	require.NoError(t, err)
	require.Equal(t, byte(1), data[0])
	data[0] = 2
	_, err = c.Open("query", base64.RawURLEncoding.EncodeToString(data))
	isOf(t, err, gather.ErrBadCursor)
	require.ErrorContains(t, err, "version 2")
}

func TestCursorsChangeTheirKeys(t *testing.T) {
	t.Parallel()
	before, between, after := cursorsOf(t, key(1)), cursorsOf(t, key(2), key(1)), cursorsOf(t, key(2))
	first, err := before.Seal("query", []byte("position"))
	require.NoError(t, err)
	_, err = between.Open("query", first)
	require.NoError(t, err)
	_, err = after.Open("query", first)
	isOf(t, err, gather.ErrBadCursor)

	second, err := between.Seal("query", []byte("position"))
	require.NoError(t, err)
	_, err = after.Open("query", second)
	require.NoError(t, err, "the first key signs")
	_, err = before.Open("query", second)
	isOf(t, err, gather.ErrBadCursor)
}

func TestCursorsKeepToTheirLengths(t *testing.T) {
	t.Parallel()
	for _, keys := range [][][]byte{{}, {{}}, {key(1)[1:]}, {key(1), key(2)[1:]}, {nil}} {
		_, err := gather.NewCursors(keys...)
		require.ErrorContains(t, err, "expected")
	}
	mine := key(1)
	c := cursorsOf(t, mine)
	text, err := c.Seal("query", make([]byte, 3023))
	require.NoError(t, err)
	require.Len(t, text, 4096)
	_, err = c.Seal("query", make([]byte, 3024))
	require.ErrorContains(t, err, "expected up to 4096")
	_, err = c.Open("query", strings.Repeat("A", 4097))
	isOf(t, err, gather.ErrBadCursor)
	clear(mine)
	_, err = c.Open("query", text)
	require.NoError(t, err, "keys are copied")
}

// Nothing but what was sealed is opened, and no text panics.
func FuzzCursorsOpen(f *testing.F) {
	c, err := gather.NewCursors(key(1), key(2))
	if err != nil {
		f.Fatal(err)
	}
	sealed := map[string]bool{}
	for _, position := range []string{"", "{}", `{"id":7}`} {
		text, err := c.Seal("query", []byte(position))
		if err != nil {
			f.Fatal(err)
		}
		sealed[text] = true
		f.Add("query", text)
		f.Add("other", text)
	}
	f.Add("query", "AQ")
	f.Fuzz(func(t *testing.T, query, text string) {
		_, err := c.Open(query, text)
		switch {
		case sealed[text] && query == "query":
			require.NoError(t, err)
		case sealed[text]:
			isOf(t, err, gather.ErrForeignCursor)
		default:
			isOf(t, err, gather.ErrBadCursor)
		}
	})
}
