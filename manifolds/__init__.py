"""What is shipped: manifolds, their file format, rulers, panels, recipes, and the transform of AnnData."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._cell_ids import CellIds as CellIds
    from ._cell_ids import SharedCells as SharedCells
    from ._cell_ids import shared_with as shared_with
    from ._figure import draw_manifold as draw_manifold
    from ._genes import GeneTable as GeneTable
    from ._genes import align_genes as align_genes
    from ._interaction_ruler import InteractionRuler as InteractionRuler
    from ._keys import Keys as Keys
    from ._keys import keys_for as keys_for
    from ._labels import LabelTable as LabelTable
    from ._labels import read_label_table as read_label_table
    from ._let import LetHead as LetHead
    from ._let import LetSettings as LetSettings
    from ._let import fit_let as fit_let
    from ._let import fit_let_batch as fit_let_batch
    from ._manifold import Manifold as Manifold
    from ._null_rulers import BranchSurrogate as BranchSurrogate
    from ._own_columns import OwnColumns as OwnColumns
    from ._own_panel import OwnPanel as OwnPanel
    from ._own_panel import read_own_panel as read_own_panel
    from ._panel import Panel as Panel
    from ._panel import PanelCells as PanelCells
    from ._panel import build_panel as build_panel
    from ._panel import read_panel_cells as read_panel_cells
    from ._panel_file import read_panel as read_panel
    from ._panel_file import write_panel as write_panel
    from ._panel_folder import write_panels as write_panels
    from ._panel_overlap import PanelMembers as PanelMembers
    from ._panel_overlap import check_overlap as check_overlap
    from ._panel_overlap import read_panel_members as read_panel_members
    from ._panel_spec import PanelSet as PanelSet
    from ._panel_spec import PanelSpec as PanelSpec
    from ._panel_spec import build_panels as build_panels
    from ._panel_spec import read_panel_set as read_panel_set
    from ._recipe import Recipe as Recipe
    from ._recipe import read_recipe as read_recipe
    from ._recipe import recipe_folder as recipe_folder
    from ._ruler import Edge as Edge
    from ._ruler import Stage as Stage
    from ._ruler import StageRuler as StageRuler
    from ._ruler import read_stage_ruler as read_stage_ruler
    from ._ruler_interface import Ruler as Ruler
    from ._ruler_recipe import RulerFile as RulerFile
    from ._transform_file import transform_file as transform_file

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_cell_ids": ["CellIds", "SharedCells", "shared_with"],
        "_figure": ["draw_manifold"],
        "_genes": ["GeneTable", "align_genes"],
        "_interaction_ruler": ["InteractionRuler"],
        "_keys": ["Keys", "keys_for"],
        "_let": ["LetHead", "LetSettings", "fit_let", "fit_let_batch"],
        "_manifold": ["Manifold"],
        "_labels": ["LabelTable", "read_label_table"],
        "_null_rulers": ["BranchSurrogate"],
        "_own_columns": ["OwnColumns"],
        "_own_panel": ["OwnPanel", "read_own_panel"],
        "_panel": ["Panel", "PanelCells", "build_panel", "read_panel_cells"],
        "_panel_file": ["read_panel", "write_panel"],
        "_panel_folder": ["write_panels"],
        "_panel_overlap": ["PanelMembers", "check_overlap", "read_panel_members"],
        "_panel_spec": ["PanelSet", "PanelSpec", "build_panels", "read_panel_set"],
        "_recipe": ["Recipe", "read_recipe", "recipe_folder"],
        "_ruler": ["Edge", "Stage", "StageRuler", "read_stage_ruler"],
        "_ruler_interface": ["Ruler"],
        "_ruler_recipe": ["RulerFile"],
        "_transform_file": ["transform_file"],
    },
)
