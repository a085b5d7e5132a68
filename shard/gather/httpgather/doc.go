// Package httpgather sends a sequence of rows as an HTTP response while it is being
// read, and reads it on the other side: [Serve] and [Read]. A stream that breaks
// off is never taken for a whole one, and [ReadBatches] goes on where it broke.
//
// # The problem
//
// The answer of a query over many shards may be long, so a server begins to send it
// before it has all of it, with status 200. When a shard fails after that, the status
// is spent: the server can only stop, and a client, a proxy or a cache that sees the
// connection end takes what came for all there is. And a client that knows must start
// over.
//
// # The idea
//
// The response is a list of JSON values, one a line (NDJSON) or as an array. Each row
// is one of them, and the last is always a control record, an object of one key that no
// row may begin with:
//
//	{"id":7}
//	{"id":8}
//	{"$cursor":"AV…"}
//	{"id":9}
//	{"$end":{"rows":3,"next":"AX…"}}
//
// Without a record $end, whose number of rows agrees, the stream is torn. If the
// query fails, the last record says so, in words for the public and with the parts of
// the ring that are missing:
//
//	{"$error":{"message":"some shards did not answer","missing":["40-80"],"resume":"AV…"}}
//
// A query that fails before its first row is answered with status 503, 500 or 400 and
// a problem of RFC 9457 instead.
//
// With [Options.Cursor] every flush ends in a checkpoint, $cursor: what follows the rows
// up to there. ReadBatches hands on rows only together with such a checkpoint, so a
// client that keeps it beside what it made of the rows, and asks for what follows it
// after a failure, sees each row exactly once.
//
// The first row is flushed at once, the others by size or after a moment, so that none
// sits unsent while the query waits. It works under HTTP/1.1 and HTTP/2. It does
// not compress: a middleware that does must flush when it is told to.
//
// Sources: NDJSON as of github.com/ndjson/ndjson-spec; RFC 9110, section 12.5.1 (the
// field Accept); RFC 9457 (problem details).
package httpgather
