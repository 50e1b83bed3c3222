# One that takes a while on a slow line: nothing in it can be compressed.
{ host, ... }: {
  large = host { name = "large"; dep = "head -c 24000000 /dev/urandom > $out"; };
}
