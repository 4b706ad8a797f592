"""The report: everything known of one service, as one self-contained HTML file for people."""
