// Package repo holds the rules of the repository as tests. It has no code.
package repo
