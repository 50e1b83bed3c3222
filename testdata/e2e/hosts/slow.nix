# One whose last step waits for a file.
{ host, gate }: {
  slow = host { name = "slow"; build = "while ! test -e ${gate}; do sleep 0.1; done; echo slow $dep > $out"; };
}
