# One of two is broken in each way there is.
{ host, ... }: {
  web = host { name = "web"; };
  broken = host { name = "broken"; build = "echo the disk is on fire >&2; exit 1"; };
  evalfail = throw "this host does not evaluate";
}
