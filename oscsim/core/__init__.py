"""What every room uses: named errors, checks and conversions, files that are whole or not there."""
