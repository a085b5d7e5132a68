// Package httplimit answers requests above a limit with 429 Too Many Requests, and
// tells every client how much it has left, in the words of the IETF.
//
// # The problem
//
// A client that is refused has to guess how long to wait, and a client that is not
// refused yet cannot know that it is about to be. So clients retry at once, all of
// them, and the load that the limit was to keep away arrives after all. Each API
// has its own X-RateLimit-… headers, with seconds here and timestamps there.
//
// # The idea
//
// [New] wraps a handler. Each request costs units of the limit of its client in a
// [ratelimit.Keyed]. Every answer carries two structured fields of
// draft-ietf-httpapi-ratelimit-headers-10, one that names the policy and one that
// says what is left of it:
//
//	RateLimit-Policy: "default";q=100;w=10
//	RateLimit: "default";r=50;t=3
//
// that is: 100 units in 10 seconds, of which 50 are left, and more come in 3
// seconds at the latest. A refused request is answered with
//
//	HTTP/1.1 429 Too Many Requests
//	Content-Type: application/problem+json
//	Retry-After: 3
//	RateLimit-Policy: "default";q=100;w=10
//	RateLimit: "default";r=0;t=3
//
//	{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded", …
//
// # The fields
//
// A limit of the package ratelimit has a rate and a burst. The draft has a quota q
// and a window w in whole seconds. q is the burst and w the time in which it
// refills, rounded up; a burst that refills in less than a second is given as what
// a second brings. So q/w is never more than the rate, and never less than half of
// it; r, the whole units left, is never more than q. t is the time until the next
// unit is there, rounded up, and is left out when nothing is missing. Retry-After
// is the time until the same request would be admitted if no other came,
// rounded up: never 0, and never less than t, as the draft demands. A partition
// key (pk) is not sent: the key may be a secret.
//
// The fields are added, not set, so that middlewares with different names can be
// stacked; the draft allows a field to be split.
//
// # Keys
//
// The key function decides who is limited. It should return what the server itself
// has established: the user of a checked token, the tenant of a session. Do not
// return what a client can choose anew for each request, such as an unchecked
// header; then each request has a fresh limit. For the same reason X-Forwarded-For
// is worth nothing unless a trusted proxy wrote it. A request without a key is
// refused: it does not share one global limit.
//
// # When not to use it
//
// A limit keeps one client from taking what belongs to others. It does not protect
// a server from the sum of all clients. It is also no defence against traffic that
// saturates the network: that has to be dropped before it arrives here.
//
// # Sources
//
// draft-ietf-httpapi-ratelimit-headers-10 (the fields and the problem type), RFC
// 9651 (structured fields), RFC 9457 (problem details), RFC 6585 (status 429), RFC
// 9110 section 10.2.3 (Retry-After).
package httplimit
