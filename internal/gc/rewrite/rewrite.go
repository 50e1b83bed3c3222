// Package rewrite gathers what is alive in packs that are mostly dead, and in small ones, into new packs.
package rewrite
