package admin_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox/admin"
)

func TestParametersHaveDefaults(t *testing.T) {
	t.Parallel()
	after, limit, bytes, err := admin.ParseDead("")
	require.NoError(t, err)
	require.Equal(t, []any{int64(0), 50, 1024}, []any{after, limit, bytes})
	after, limit, bytes, err = admin.ParseDead("bytes=0&after=9223372036854775807&limit=100")
	require.NoError(t, err)
	require.Equal(t, []any{int64(1<<63 - 1), 100, 0}, []any{after, limit, bytes})
}

func TestTimesWithoutAZoneAreUTC(t *testing.T) {
	t.Parallel()
	want := time.Date(2026, 1, 31, 23, 59, 0, 0, time.UTC)
	for _, text := range []string{"2026-01-31T23:59", "2026-01-31T23:59:00", "2026-01-31T23:59:00Z", "2026-02-01T00:59:00%2B01:00", "2026-01-31T23%3A59"} {
		got, err := admin.ParseBefore("before=" + text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
}

func TestErrorsNameParameterValueAndExpectation(t *testing.T) {
	t.Parallel()
	dead := func(raw string) error { _, _, _, err := admin.ParseDead(raw); return err }
	page := func(raw string) error { _, _, _, err := admin.ParsePage(raw); return err }
	ids := func(raw string) error { _, err := admin.ParseIDs(raw); return err }
	before := func(raw string) error { _, err := admin.ParseBefore(raw); return err }
	topic := func(raw string) error { _, err := admin.ParseTopic(raw); return err }
	for _, c := range []struct {
		parse func(string) error
		raw   string
		want  string
	}{
		{dead, "limit=0", `limit is "0", want a whole number from 1 to 100`},
		{dead, "limit=101", `limit is "101", want a whole number from 1 to 100`},
		{dead, "limit=", `limit is "", want a whole number from 1 to 100`},
		{dead, "bytes=1048577", `bytes is "1048577", want a whole number from 0 to 1048576`},
		{dead, "after=-1", `after is "-1", want a whole number from 0 to 9223372036854775807`},
		{dead, "after=9223372036854775808", `after is "9223372036854775808", want a whole number`},
		{dead, "after=1&after=2", `after is "1, 2", want one value`},
		{dead, "limt=5", `the name of a parameter is "limt", want one of after, limit, bytes`},
		{dead, "after=%zz", `the list of parameters is "after=%zz", want name=value`},
		{dead, "after=" + strings.Repeat("1", 1000), strings.Repeat("1", 100) + `…"`},
		{page, "did=drop", `did is "drop", want replay, purge, pause or resume`},
		{page, "limit=1", `the name of a parameter is "limit", want one of after, did, n`},
		{ids, "", `id is "", want the ID of a dead message`},
		{ids, "id=1&id=0", `id is "0", want a whole number from 1 to`},
		{ids, "id=1,2", `id is "1,2", want a whole number from 1 to`},
		{ids, strings.Repeat("id=1&", 1001), `the number of id is "1001", want at most 1000`},
		{before, "", `before is "", want a time after 1970`},
		{before, "before=yesterday", `before is "yesterday", want a time after 1970`},
		{before, "before=1969-12-31T00:00", `before is "1969-12-31T00:00", want a time after 1970`},
		{topic, "", `topic is "", want the name of a topic`},
		{topic, "name=a", `the name of a parameter is "name", want one of topic`},
	} {
		require.ErrorContains(t, c.parse(c.raw), c.want, c.raw)
	}
}

// FuzzParameters: whatever is sent, what is accepted is in range and means the
// same when it is written down again.
func FuzzParameters(f *testing.F) {
	for _, raw := range []string{
		"", "after=5&limit=3&bytes=10", "id=1&id=2", "before=2026-01-31T23:59", "topic=a%20b", "did=purge&n=3&after=1",
		"limit=1e2", "a;b", "%", "id=+1", "topic=%00", "before=9999-12-31T23:59:59%2B23:59",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if after, limit, bytes, err := admin.ParseDead(raw); err == nil {
			require.GreaterOrEqual(t, after, int64(0))
			require.True(t, 1 <= limit && limit <= 100 && 0 <= bytes && bytes <= 1<<20)
			after2, limit2, bytes2, err := admin.ParseDead(fmt.Sprintf("after=%d&limit=%d&bytes=%d", after, limit, bytes))
			require.NoError(t, err)
			require.Equal(t, []any{after, limit, bytes}, []any{after2, limit2, bytes2})
		}
		if after, did, n, err := admin.ParsePage(raw); err == nil {
			require.True(t, after >= 0 && n >= 0)
			require.Contains(t, []string{"", "replay", "purge", "pause", "resume"}, did)
		}
		if ids, err := admin.ParseIDs(raw); err == nil {
			require.True(t, len(ids) > 0 && len(ids) <= 1000)
			again := url.Values{}
			for _, id := range ids {
				require.Positive(t, id)
				again.Add("id", fmt.Sprint(id))
			}
			ids2, err := admin.ParseIDs(again.Encode())
			require.NoError(t, err)
			require.Equal(t, ids, ids2)
		}
		if before, err := admin.ParseBefore(raw); err == nil {
			require.Positive(t, before.UnixMicro())
		}
		if topic, err := admin.ParseTopic(raw); err == nil {
			require.NotEmpty(t, topic)
			topic2, err := admin.ParseTopic(url.Values{"topic": {topic}}.Encode())
			require.NoError(t, err)
			require.Equal(t, topic, topic2)
		}
	})
}
