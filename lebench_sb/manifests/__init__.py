"""What stands beside a manifest, its marker; and checks of what it names, before anything is learnt."""
