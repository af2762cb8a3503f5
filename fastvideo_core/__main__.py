from fastvideo_core.cli import main

main()
